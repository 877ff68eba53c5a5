"""What `coverage.py` converts, and what it measures of each model."""
