"""What a network as users write it is: its name, what it needs, how it is made and what it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Kind:
    """A small network of one kind.

    `bundles`: what it needs beyond convolutions, matrices and usual activations: A linear maps and bookkeeping, B
    embeddings, C maxima, D further activations, E norms of the signal, F attention, G quotients, H recurrence, O an
    output of a structure of its own.
    """

    name: str
    bundles: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Any]  # a random batch of so many, as a tuple or a dict

    def build(self):
        """The network in eval mode, its batch norms as training would leave them."""
        model = self.make().train()
        with torch.no_grad():
            for _ in range(3):
                inputs = self.inputs(16)
                model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
        return model.eval()


def normal(*shapes):
    """Inputs of these shapes without the batch, normally distributed."""
    return lambda n: tuple(torch.randn(n, *shape) for shape in shapes)


def even(*shape):
    """One input, evenly distributed from -1 to 1."""
    return lambda n: (2 * torch.rand(n, *shape) - 1,)


def numbers(most, *shapes):
    """Inputs of whole numbers below `most`."""
    return lambda n: tuple(torch.randint(0, most, (n, *shape)) for shape in shapes)
