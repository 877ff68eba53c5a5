"""How outputs of any structure are compared."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor


def run(network, inputs):
    """The network's output for a tuple or a dict of inputs."""
    return network(**inputs) if isinstance(inputs, Mapping) else network(*inputs)


def first(inputs, n):
    """The first `n` of a batch."""
    return {k: v[:n] for k, v in inputs.items()} if isinstance(inputs, Mapping) else tuple(v[:n] for v in inputs)


def batches(inputs, size):
    """A batch in smaller ones, as data to calibrate on."""
    if isinstance(inputs, Mapping):
        parts = zip(*(value.split(size) for value in inputs.values()), strict=True)
        return [dict(zip(inputs, part, strict=True)) for part in parts]
    return [part if len(part) > 1 else part[0] for part in zip(*(value.split(size) for value in inputs), strict=True)]


def tensors(output):
    """All tensors of an output in order, whatever its structure: dicts, tuples, dataclasses."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif is_dataclass(output):
        parts = [getattr(output, one.name) for one in fields(output)]
    else:
        parts = list(output) if isinstance(output, list | tuple) else []
    return [tensor for part in parts for tensor in tensors(part)]


def difference(got, wanted):
    """The largest difference of a tensor from the one wanted, in shares of its largest value; inf for another shape."""
    got, wanted = tensors(got), tensors(wanted)
    if [value.shape for value in got] != [value.shape for value in wanted]:
        return float("inf")
    return max(_difference(a.double(), b.double()) for a, b in zip(got, wanted, strict=True))


def equal(a, b):
    """Whether two outputs are equal bit for bit."""
    a, b = tensors(a), tensors(b)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _difference(got, wanted):
    if torch.equal(got, wanted):
        return 0.0
    found = float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
    return found if found == found else float("inf")
