"""What the caller gives as data, as checked batches: inputs in the network's order, and labels for those who ask."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.inputs import InputSpec, check_finite, check_inputs, check_plain, oddity

Batch = tuple[Tensor, ...]
Labelled = tuple[Batch, Tensor | None]
_SPLIT = 64  # images a batch of a bare tensor; they are dealt anew anyway


class Source:
    """Iterate over the caller's batches as (inputs, labels or None), checked.

    Args:
        given: a tensor, or any re-iterable of batches of any size (DataLoader, list, tuple). A batch is a tensor, a
            dict of inputs (labels under "label" or "labels"), or a tuple whose first n items are the network's n
            inputs, the next its labels. A dict of inputs, and for n > 1 inputs a tuple of n tensors, is one batch.
        specs: the network's inputs.
        dtype: the network's floating dtype.
        what: how messages call the data.
        device: where the batches go.
        classes: how many the network tells apart, for who needs labels; None: nobody looks at what follows the inputs.
        targets: called with how many images each batch has and with what follows its inputs, whatever that is; labels
            are then what they happen to be.

    Attributes:
        labelled: whether all targets so far were labels; those of other batches are -1.

    Raises:
        FewSpikesError: a one-shot iterator, no images, a batch that does not fit or holds NaN or inf; and, if they are
            needed, labels for some batches only, or such as `checked` refuses.
    """

    def __init__(
        self,
        given: Any,
        specs: tuple[InputSpec, ...],
        dtype: torch.dtype,
        what: str,
        device: torch.device | None = None,
        classes: int | None = None,
        targets: Callable[[int, Any], None] | None = None,
    ) -> None:
        self.labelled, self._targets = True, targets
        self._specs, self._dtype, self._what, self._device, self._classes = specs, dtype, what, device, classes
        self._batches = _batches(given, specs, what)

    @property
    def total(self) -> int | None:
        """Number of the caller's batches, or None if the loader does not tell."""
        try:
            return len(self._batches)  # type: ignore[arg-type]
        except TypeError:  # no length, or a DataLoader over a data set that has none
            return None

    def __iter__(self) -> Iterator[Labelled]:
        first: Labelled | None = None
        for batch in self._batches:
            inputs, labels = self._checked(batch)
            if not len(inputs[0]):
                continue
            first = first or (inputs, labels)
            if any(a.shape[1:] != b.shape[1:] for a, b in zip(inputs, first[0], strict=True)):
                raise FewSpikesError(
                    f"{self._what} has sequences of several lengths; give one length, or one call for each"
                )
            if (labels is None) != (first[1] is None):
                raise FewSpikesError(
                    f"some batches of the {self._what} have labels and others not; give all of them labels, or none"
                )
            yield inputs, labels
        if first is None:
            raise FewSpikesError(f"{self._what} is empty; at least one batch with one image is needed")

    def _checked(self, batch: Any) -> Labelled:
        inputs, label, targets = _split(batch, [spec.name for spec in self._specs], self._what)
        check_inputs(self._specs, inputs, self._dtype, self._what)
        if any(value.is_meta and self._device != value.device for value in inputs):
            raise FewSpikesError(f"{self._what} is on the meta device and holds no values; give tensors that do")
        check_finite(inputs, self._what)
        if self._targets is not None and len(inputs[0]):
            self._targets(len(inputs[0]), targets)
        labels = self._labels(label, len(inputs[0])) if len(inputs[0]) else None
        return tuple(value.to(self._device) for value in inputs), None if labels is None else labels.to(self._device)

    def _labels(self, given: Any, images: int) -> Tensor | None:
        """The labels, if somebody wants them."""
        if self._classes is None or given is None:
            return None
        try:
            return checked(given, images, self._classes)
        except FewSpikesError:
            if self._targets is None:
                raise
            self.labelled = False
            return torch.full((images,), -1)


def checked(given: Any, images: int, classes: int) -> Tensor:
    """Labels as int64, [images].

    Raises:
        FewSpikesError: not a whole number for each image, or one that is no class.
    """
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise FewSpikesError(f"labels must be {images} whole numbers; got a {type(given).__name__}") from None
    odd = oddity(labels) or ("without values, on the meta device" if labels.is_meta else "")
    if odd:
        raise FewSpikesError(f"labels must be {images} whole numbers; got a tensor that is {odd}")
    is_whole = not labels.is_floating_point() and labels.dtype != torch.bool
    if labels.shape != (images,) or not is_whole:
        raise FewSpikesError(
            f"labels must be {images} whole numbers; got {labels.dtype} of shape {tuple(labels.shape)}; for targets "
            "that are no classes give evaluate a metric"
        )
    values = labels.cpu().numpy()  # torch has no smallest of unsigned numbers
    least, most = int(values.min()), int(values.max())
    if least < 0 or most >= classes:
        raise FewSpikesError(
            f"label {least if least < 0 else most} is outside the network's classes 0 to {classes - 1}; "
            "map the labels first"
        )
    return labels.to(torch.int64)


def _batches(given: Any, specs: tuple[InputSpec, ...], what: str) -> Iterable[Any]:
    if isinstance(given, Tensor):
        check_plain([("the tensor", given)], what)
        return given.split(_SPLIT) if given.ndim and len(given) else ()
    if isinstance(given, Mapping):
        return (given,)
    if isinstance(given, tuple) and 1 < len(specs) == len(given) and all(isinstance(v, Tensor) for v in given):
        return (given,)
    if isinstance(given, Iterator):
        raise FewSpikesError(f"{what} is a one-shot iterator; give a list or a DataLoader, it is read more than once")
    if isinstance(given, np.ndarray):
        raise FewSpikesError(f"{what} is a NumPy array; give torch.from_numpy(array)")
    if not hasattr(given, "__iter__") or isinstance(given, str):
        raise FewSpikesError(f"{what} must be a tensor or a re-iterable of batches; got {type(given).__name__}")
    found: Iterable[Any] = given
    return found


def _split(batch: Any, names: list[str], what: str) -> tuple[tuple[Any, ...], Any, Any]:
    """Inputs in the network's order, their labels, and all that comes with them.

    That is one thing by itself, several in a tuple, and with inputs by name a dict of what else it holds.
    """
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Mapping):  # (inputs by name, labels, ...)
        inputs, label, others = _split(batch[0], names, what)
        return (inputs, label, others) if len(batch) == 1 else (inputs, batch[1], _alone(batch[1:]))
    if isinstance(batch, Mapping):
        missing = [name for name in names if name not in batch]
        if missing:
            has = ", ".join(map(str, batch))
            raise FewSpikesError(f"{what}: a batch lacks {', '.join(missing)}; it has {has}")
        others = {key: value for key, value in batch.items() if key not in names}
        return tuple(batch[name] for name in names), batch.get("labels", batch.get("label")), others or None
    if not isinstance(batch, Tensor | tuple | list):
        raise FewSpikesError(f"{what}: a batch is a tensor, a dict or a tuple; got {type(batch).__name__}")
    items = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    rest = items[len(names) :]
    return items[: len(names)], next(iter(rest), None), _alone(rest)


def _alone(items: Sequence[Any]) -> Any:
    """One item by itself, several in a tuple; None of none."""
    return tuple(items) if len(items) > 1 else next(iter(items), None)
