"""Sequences of another length than the example's: which axes of a recurrent network's inputs are free at run time.

An exported graph has the example's sizes in it. Where a loop alone runs over an axis, nothing else depends on its
length; whether that is so the network itself tells, beside the graph, on sequences of other lengths. Numbers are
compared on short ones: over many time steps a recurrent network may be chaotic, and rounding errors grow.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.graph.capture import Captured
from fewspikes.graph.inputs import InputSpec, as_named
from fewspikes.graph.interpreter import Running
from fewspikes.graph.model import in_order, inner
from fewspikes.graph.nested import tensors_of
from fewspikes.network.spiking import ExactActivation
from fewspikes.operators.rewriting import Prepared

_IMAGES = 2
_SHORT = (7, 16)  # time steps
_NEAR = 1e-3  # relative to the largest output; a length that is frozen somewhere does more


def with_free_lengths(model: nn.Module, example: Any, captured: Captured, prepared: Prepared) -> tuple[InputSpec, ...]:
    """What the network takes, with the axes that may have another length.

    Args:
        model, example: as for `convert`.
        captured: the model.
        prepared: the same as a spiking network's graph.
    """
    named = in_order(inner(model), as_named(example), captured.keywords)
    if not prepared.graph.loops or any(value.is_meta for value in named.values()):
        return captured.inputs
    exact = {site.node: ExactActivation(site.activation) for site in prepared.sites}
    trial = _Trial(inner(model), named, Running(prepared.graph, prepared.tensors, exact), captured.keywords)
    lengths = {loop.time_steps for loop in prepared.graph.loops.values()}
    found = []
    for (name, value), spec in zip(named.items(), captured.inputs, strict=True):
        axes = (axis for axis, size in enumerate(spec.shape) if size in lengths and value.is_floating_point())
        found.append(replace(spec, free=tuple(axis for axis in axes if trial.takes(name, axis + 1))))
    return tuple(found)


class _Trial:
    """A model beside its graph, on inputs of other lengths than the example's."""

    def __init__(self, model: nn.Module, named: Mapping[str, Tensor], graph: Running, keywords: bool) -> None:
        self.model, self.named, self.graph, self.keywords = model, named, graph, keywords

    def takes(self, name: str, axis: int) -> bool:
        """Whether both compute the same when one axis of an input has another length."""
        length = self.named[name].shape[axis]
        others = {max(length // 2, 1), length + 1, *_SHORT, 2 * length + 1} - {length}
        return all(self._agree(name, axis, other) for other in sorted(others))

    @torch.no_grad()
    def _agree(self, name: str, axis: int, length: int) -> bool:
        random = torch.Generator().manual_seed(length)
        given = {}
        for other, value in self.named.items():
            shape = [_IMAGES, *value.shape[1:]]
            if other == name:
                shape[axis] = length
            spread = float(value.std()) if value.is_floating_point() and value.numel() > 1 else 0.0
            noise = torch.randn(shape, generator=random).to(value) * (spread or 1.0)
            given[other] = noise if value.is_floating_point() else value[:1].expand(shape)
        try:
            wanted = self.model(**_copies(given)) if self.keywords else self.model(*_copies(given).values())
            got = self.graph(*given.values())
        except Exception:  # whatever a model raises that does not take it
            return False
        return _alike(tensors_of(wanted), tensors_of(got), length <= max(_SHORT))


def _copies(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in given.items()}


def _alike(wanted: list[Tensor], got: list[Tensor], in_numbers: bool) -> bool:
    shapes = [[value.shape for value in values] for values in (wanted, got)]
    same = shapes[0] == shapes[1]
    return same and (not in_numbers or all(_near(a, b) for a, b in zip(wanted, got, strict=True)))


def _near(wanted: Tensor, got: Tensor) -> bool:
    if not wanted.numel() or not wanted.is_floating_point():
        return bool(torch.equal(wanted, got))
    return bool((wanted - got).abs().max() <= _NEAR * wanted.abs().max())
