"""A captured graph becomes a spiking one: a small rule for every operator."""
