"""What a spike reaches: synapses behind every neuron, multiply-adds that remain, and time steps of a network."""

from fewspikes.synapses.fan import FanOut
from fewspikes.synapses.macs import Macs, macs
from fewspikes.synapses.paths import fan_out
from fewspikes.synapses.steps import interval_steps, latency_steps

__all__ = ["FanOut", "Macs", "fan_out", "interval_steps", "latency_steps", "macs"]
