"""A ReLU network's spikes as whole numbers: each layer one exact integer product."""

from fewspikes.hardware.integers.network import IntegerNetwork, to_integer

__all__ = ["IntegerNetwork", "to_integer"]
