"""Speed and memory, measured side by side on this machine and signed with what they were measured with."""

from fewspikes.bench.activation import activation_rows, fit_rows
from fewspikes.bench.conditions import conditions
from fewspikes.bench.memory import memory_row
from fewspikes.bench.network import growth_rows, laid_out, network_row, spiking
from fewspikes.bench.timing import alternate, ratio

__all__ = [
    "activation_rows",
    "alternate",
    "conditions",
    "fit_rows",
    "growth_rows",
    "laid_out",
    "memory_row",
    "network_row",
    "ratio",
    "spiking",
]
