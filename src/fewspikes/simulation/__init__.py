"""Simulation: the network spike by spike, step by step, in the pipeline, and event by event."""
