"""Spiking networks as hardware has them."""
