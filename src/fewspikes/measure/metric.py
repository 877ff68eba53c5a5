"""A metric of the user's own: what the ANN and the spiking network score on the same images and targets."""

import copy
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.nested import tensors_of, with_tensors

Scores = dict[str, float]


class Both:
    """The ANN and the spiking network, each with a meter of its own; `metric` as for `Meter`."""

    def __init__(self, metric: Any) -> None:
        self.ann, self.snn = Meter(metric), Meter(metric)

    def expect(self, images: int, targets: Any) -> None:
        """The targets of the loader's next batch."""
        if targets is None:
            raise FewSpikesError(
                "a metric needs targets, and a batch of the evaluation data has none; give (inputs, targets)"
            )
        self.ann.expect(images, targets)
        self.snn.expect(images, targets)

    def scores(self) -> dict[str, Scores]:
        """By name, of "ann" and "snn"; NaN where one of them has none of that name."""
        with torch.inference_mode():
            ann, snn = self.ann.scores(), self.snn.scores()
        names = dict.fromkeys((*ann, *snn))
        return {name: {"ann": ann.get(name, math.nan), "snn": snn.get(name, math.nan)} for name in names}


class Meter:
    """What one network scores. Outputs come in batches of any size, targets in the loader's.

    Args:
        metric: called as metric(outputs, targets) with those of all images, it returns a number or a dict of numbers;
            or an object whose update(outputs, targets) is called with each of the loader's batches and whose compute()
            returns the same, as those of torchmetrics: a copy of it is used, reset before.

    Raises:
        FewSpikesError: it is neither.
    """

    def __init__(self, metric: Any) -> None:
        self._name = getattr(metric, "__name__", type(metric).__name__)
        self._metric = _updated(metric)
        self._outputs: list[Any] = []
        self._targets: deque[tuple[int, Any]] = deque()
        self._ready = 0

    def expect(self, images: int, targets: Any) -> None:
        """The targets of the loader's next batch."""
        self._targets.append((images, targets))

    def add(self, output: Any, images: int) -> None:
        """The network's output for the next images."""
        odd = next((tensor for tensor in tensors_of(output) if tensor.shape[:1] != (images,)), None)
        if odd is not None:
            raise FewSpikesError(
                f"a metric needs an output for each of the {images} images; the network also returns a tensor of shape "
                f"{tuple(odd.shape)}: leave it out"
            )
        self._outputs.append(with_tensors(output, [tensor.cpu() for tensor in tensors_of(output)]))
        self._ready += images
        while self._targets and self._targets[0][0] <= self._ready:
            count, targets = self._targets.popleft()
            self._metric.update(self._next(count), targets)

    def scores(self) -> Scores:
        """By name, after all images."""
        found = self._metric.compute()
        entries = found if isinstance(found, Mapping) else {self._name: found}
        return {name: number for key, value in entries.items() for name, number in _numbers(str(key), value)}

    def _next(self, count: int) -> Any:
        """The outputs of the next images, which are no longer kept."""
        whole = self._outputs[0] if len(self._outputs) == 1 else _joined(self._outputs)
        tensors, self._ready = tensors_of(whole), self._ready - count
        self._outputs = [with_tensors(whole, [tensor[count:] for tensor in tensors])] if self._ready else []
        return with_tensors(whole, [tensor[:count] for tensor in tensors])


class _Whole:
    """A function of all outputs and all targets."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function
        self._outputs, self._targets, self._images = list[Any](), list[Any](), list[int]()

    def update(self, outputs: Any, targets: Any) -> None:
        self._outputs.append(outputs)
        self._targets.append(targets)
        self._images.append(len(tensors_of(outputs)[0]))

    def compute(self) -> Any:
        return self._function(_joined(self._outputs), together(self._targets, self._images))


def together(parts: Sequence[Any], images: Sequence[int]) -> Any:
    """The targets of all batches as one.

    Tensors and arrays are joined along axis 0, dicts by key and tuples item by item; so are lists of tensors that have
    a row for each image, and other lists have an entry for each image and follow one another.

    Args:
        parts: one for each batch.
        images: of each batch.

    Raises:
        FewSpikesError: anything else, or batches that differ in kind.
    """
    first = parts[0]
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat([part.cpu() for part in parts])
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    if all(isinstance(part, Mapping) and part.keys() == first.keys() for part in parts):
        return {key: together([part[key] for part in parts], images) for key in first}
    if all(isinstance(part, tuple | list) for part in parts):
        if isinstance(first, tuple) or all(map(_is_by_row, parts, images)):
            columns = [together(column, images) for column in zip(*parts, strict=True)]
            return tuple(columns) if isinstance(first, tuple) else columns
        if all(len(part) == count for part, count in zip(parts, images, strict=True)):
            return [entry for part in parts for entry in part]
    raise FewSpikesError(
        f"targets of {' and '.join(dict.fromkeys(type(part).__name__ for part in parts))} cannot be joined for a "
        "function; give a metric with update(outputs, targets) and compute(), which gets them batch by batch"
    )


def _is_by_row(part: Sequence[Any], images: int) -> bool:
    return all(isinstance(item, Tensor) and item.shape[:1] == (images,) for item in part)


def _joined(outputs: Sequence[Any]) -> Any:
    """The outputs of several batches as those of one."""
    columns = zip(*map(tensors_of, outputs), strict=True)
    return with_tensors(outputs[0], [torch.cat(column) for column in columns])


def _updated(metric: Any) -> Any:
    """An object of its own with update and compute."""
    if isinstance(metric, type):
        raise FewSpikesError(f"metric is the class {metric.__name__}; give an instance of it")
    if callable(getattr(metric, "update", None)) and callable(getattr(metric, "compute", None)):
        own = copy.deepcopy(metric)
        if callable(getattr(own, "reset", None)):
            own.reset()
        return own
    if not callable(metric):
        raise FewSpikesError(
            "metric must be a function of outputs and targets, or an object with update(outputs, targets) and "
            f"compute(); got {said(metric)}"
        )
    return _Whole(metric)


def _numbers(name: str, value: Any) -> list[tuple[str, float]]:
    """A number by its name; the numbers of a tensor by their places."""
    try:
        if value is None or isinstance(value, str):
            raise TypeError
        array = np.asarray(value.cpu() if isinstance(value, Tensor) else value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise FewSpikesError(f"a metric returns a number or a dict of numbers; got {name} = {said(value)}") from None
    if not array.ndim:
        return [(name, float(array))]
    return [(f"{name}[{', '.join(map(str, place))}]", float(number)) for place, number in np.ndenumerate(array)]


def finite(scores: Scores) -> dict[str, float | None]:
    """As JSON has them: None where a number is not finite."""
    return {name: number if math.isfinite(number) else None for name, number in scores.items()}
