"""The FS-neuron: what it imitates, its parameters, THE recurrence, and a layer of it."""
