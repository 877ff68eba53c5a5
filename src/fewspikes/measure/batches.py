"""Calibration and evaluation data: whatever the caller has, as checked batches of inputs and labels."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.inputs import InputSpec, check_finite, check_inputs

_DEALT = 64  # images a batch when a bare tensor is dealt out


class Batches:
    """Iterate over a loader as (inputs in the network's order, labels or None), as often as wanted.

    Args:
        loader: a tensor (dealt into batches), or any re-iterable of batches (DataLoader, list, tuple). A batch is a
            tensor, a dict of inputs (labels under "label" or "labels"), or a tuple whose first n items are the
            network's n inputs, the next the label.
        specs: the network's inputs.
        dtype: the network's floating dtype.
        what: how messages call the data.
        device: where the batches go.

    Raises:
        FewSpikesError: a one-shot iterator, no batches, or a batch that does not fit or holds NaN or inf.
    """

    def __init__(
        self,
        loader: Any,
        specs: tuple[InputSpec, ...],
        dtype: torch.dtype,
        what: str,
        device: torch.device | None = None,
    ) -> None:
        if isinstance(loader, Tensor):
            loader = loader.split(_DEALT) if loader.ndim and len(loader) else ()
        if isinstance(loader, Iterator):
            raise FewSpikesError(
                f"{what} is a one-shot iterator; give a list or a DataLoader, it is read more than once"
            )
        if not hasattr(loader, "__iter__") or isinstance(loader, str | Mapping):
            raise FewSpikesError(f"{what} must be a tensor or a re-iterable of batches; got {type(loader).__name__}")
        if isinstance(loader, np.ndarray):
            raise FewSpikesError(f"{what} is a NumPy array; give torch.from_numpy(array)")
        self._loader, self._specs, self._dtype, self._what, self._device = loader, specs, dtype, what, device

    @property
    def total(self) -> int | None:
        """Number of batches, or None if the loader does not tell."""
        try:
            return len(self._loader)
        except TypeError:  # no length, or a DataLoader over a data set that has none
            return None

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Any]]:
        empty = True
        for batch in self._loader:
            inputs, labels = self._split(batch)
            check_inputs(self._specs, inputs, self._dtype, self._what)
            check_finite(inputs, self._what)
            if not len(inputs[0]):
                continue
            empty = False
            yield tuple(value.to(self._device) for value in inputs), labels
        if empty:
            raise FewSpikesError(f"{self._what} is empty; at least one batch with one image is needed")

    def _split(self, batch: Any) -> tuple[tuple[Tensor, ...], Any]:
        n = len(self._specs)
        if isinstance(batch, Mapping):
            missing = [spec.name for spec in self._specs if spec.name not in batch]
            if missing:
                raise FewSpikesError(f"{self._what}: a batch lacks {', '.join(missing)}; it has {', '.join(batch)}")
            return tuple(batch[spec.name] for spec in self._specs), batch.get("labels", batch.get("label"))
        items = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        labels = items[n] if len(items) > n else None
        return items[:n], labels
