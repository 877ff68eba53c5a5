"""The recipes that trained the library's own networks; a run that was cut goes on where it was."""

from fewspikes.paper.training.images import InMemory, OnDisk, augment, read_split
from fewspikes.paper.training.loop import Recipe, accuracy, cycle, train

__all__ = ["InMemory", "OnDisk", "Recipe", "accuracy", "augment", "cycle", "read_split", "train"]
