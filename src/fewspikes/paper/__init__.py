"""Every table and figure of Stöckl and Maass 2021 made anew, with our own row beside the paper's."""

from fewspikes.paper.reproduce import NAMES, WEIGHTED, reproduce
from fewspikes.paper.sources import Sources

__all__ = ["NAMES", "WEIGHTED", "Sources", "reproduce"]
