"""The spiking network: graph, weights and layers; what follows from them without running it; its file."""
