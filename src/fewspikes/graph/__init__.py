"""A trained model as a graph of ATen operators."""
