"""Speed and memory, measured side by side on this machine and signed with what they were measured with."""

from fewspikes.bench.activation import activation_rows, fit_rows
from fewspikes.bench.conditions import conditions
from fewspikes.bench.memory import memory_row
from fewspikes.bench.network import growth_rows, network_row, spiking

__all__ = ["activation_rows", "conditions", "fit_rows", "growth_rows", "memory_row", "network_row", "spiking"]
