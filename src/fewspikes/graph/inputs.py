"""What a network takes: input specifications, and the checks that keep bad input out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fewspikes.base.checks import whole
from fewspikes.base.errors import FewSpikesError

_COLOURS = (1, 3)  # channels of a picture


@dataclass(frozen=True)
class InputSpec:
    """Name, shape per image (without the batch axis) and dtype of one input.

    `by_name`: the model takes something else at its place, which this network leaves out, so a call must name it.
    `free`: the axes of the shape that may have another length, as the time steps of a sequence.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    by_name: bool = False
    free: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        plain = {"name": self.name, "shape": list(self.shape), "dtype": str(self.dtype).removeprefix("torch.")}
        return plain | ({"by_name": True} if self.by_name else {}) | ({"free": list(self.free)} if self.free else {})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "InputSpec":
        """The reverse of `to_json`."""
        dtype = getattr(torch, content["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise FewSpikesError(f"{content['dtype']!r} is no dtype")
        shape = tuple(int(n) for n in content["shape"])
        free = tuple(whole("a free axis", axis, 0, len(shape) - 1) for axis in content.get("free", ()))
        return cls(str(content["name"]), shape, dtype, content.get("by_name") is True, free)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an image may have this shape: the example's, but for lengths that are free and not 0."""
        sizes = zip(shape, self.shape, strict=False)
        return len(shape) == len(self.shape) and all(
            given == size or (axis in self.free and given > 0) for axis, (given, size) in enumerate(sizes)
        )


def as_named(inputs: Any) -> dict[str, Tensor]:
    """A tensor, a tuple or list of tensors, or a dict of keyword arguments, as a dict of tensors.

    Raises:
        FewSpikesError: something else, or tensors without a common batch axis.
    """
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    named = dict(inputs) if isinstance(inputs, Mapping) else None
    if isinstance(inputs, tuple | list):
        named = {f"x{i}" if i else "x": value for i, value in enumerate(inputs)}
    if isinstance(inputs, np.ndarray):
        raise FewSpikesError("inputs must be tensors; give torch.from_numpy(array)")
    if named and any(value is None for value in named.values()):
        raise FewSpikesError(
            "an input is None; leave it out: give a dict of the others, by the names that forward takes"
        )
    if not named or not all(isinstance(value, Tensor) for value in named.values()):
        raise FewSpikesError(
            f"inputs must be a tensor, a tuple of tensors or a dict of tensors; got {_describe(inputs)}"
        )
    check_plain(named.items(), "example_inputs")
    sizes = {tuple(value.shape[:1]) for value in named.values()}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise FewSpikesError(
            "every input needs a batch axis 0 of one common size >= 1; got shapes "
            + ", ".join(f"{name} {tuple(value.shape)}" for name, value in named.items())
        )
    return named


def bound(specs: Sequence[InputSpec], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The values of a call in the order of `specs`: by position, by name, or as one dict by name.

    Raises:
        FewSpikesError: too many, too few, or a name that is none.
    """
    if len(args) == 1 and isinstance(args[0], Mapping) and not kwargs:
        return bound(specs, (), args[0])
    names = [spec.name for spec in specs]
    rest = names[len(args) :]
    misplaced = next((spec.name for spec in specs[: len(args)] if spec.by_name), None)
    if misplaced is not None:
        raise FewSpikesError(
            f"the model takes something else in front of {misplaced}, which this network leaves out; give {misplaced} "
            f"by name: {misplaced}=..."
        )
    if len(args) > len(names) or set(kwargs) != set(rest):
        raise FewSpikesError(
            f"this network takes the inputs {', '.join(names)}; got {len(args)} by position"
            + (f" and {', '.join(map(str, kwargs))} by name" if kwargs else "")
        )
    return [*args, *(kwargs[name] for name in rest)]


def oddity(value: Tensor) -> str:
    """What keeps a tensor from being a plain block of real numbers; "" if nothing does."""
    if value.is_nested:
        return "a nested tensor"
    if is_traceable_wrapper_subclass(value):  # torchao's weights are such
        return f"a {type(value).__name__}"
    if value.layout is not torch.strided:
        return f"of layout {str(value.layout).removeprefix('torch.')}"
    if value.is_quantized:
        return f"quantised ({str(value.dtype).removeprefix('torch.')})"
    return "complex" if value.is_complex() else ""


def check_plain(named: Iterable[tuple[str, Any]], what: str) -> None:
    """Raise FewSpikesError for a tensor that is sparse, nested, quantised, complex, or of a kind of its own."""
    if torch.compiler.is_compiling():  # a compiler's own tensors stand for plain ones
        return
    for name, value in named:
        odd = oddity(value) if isinstance(value, Tensor) else ""
        if odd:
            raise FewSpikesError(f"{what}: {name} is {odd}; give a plain tensor of real numbers")


def specs_of(named: Mapping[str, Tensor]) -> tuple[InputSpec, ...]:
    """The specification of each example input; floating inputs must be float32 or float64."""
    for name, value in named.items():
        if value.is_floating_point() and value.dtype not in (torch.float32, torch.float64):
            raise FewSpikesError(f"input {name} is {value.dtype}; FS-neurons need float32 or float64: call .float()")
    return tuple(InputSpec(name, tuple(value.shape[1:]), value.dtype) for name, value in named.items())


def check_inputs(specs: Sequence[InputSpec], values: Sequence[Any], dtype: torch.dtype | None, what: str) -> None:
    """Raise unless `values` fit `specs`; floating inputs must have the network's `dtype`.

    Raises:
        FewSpikesError: another number, shape, or dtype, with both sides named.
    """
    names = [spec.name for spec in specs]
    if len(values) != len(specs):
        together = f"; give them together, as a tuple ({', '.join(names)}) or a dict" if len(names) > 1 else ""
        raise FewSpikesError(f"{what}: {len(specs)} inputs wanted ({', '.join(names)}); got {len(values)}{together}")
    check_plain(zip(names, values, strict=True), what)
    for spec, value in zip(specs, values, strict=True):
        if not isinstance(value, Tensor):
            raise FewSpikesError(f"{what}: {spec.name} must be a tensor; got {_describe(value)}")
        _check_shape(spec, value, what)
        if len(value) != len(values[0]):
            raise FewSpikesError(
                f"{what}: the inputs have batches of {len(values[0])} and {len(value)} ({spec.name}); give one size"
            )
        wanted = dtype if spec.dtype.is_floating_point and dtype is not None else spec.dtype
        if value.dtype != wanted:
            raise FewSpikesError(
                f"{what}: {spec.name} is {value.dtype}, the network takes {wanted}; convert it with .to()"
            )


def _check_shape(spec: InputSpec, value: Tensor, what: str) -> None:
    if value.ndim and spec.takes(value.shape[1:]):
        return
    free = [axis for axis in spec.free if value.ndim == len(spec.shape) + 1 and not value.shape[axis + 1]]
    if free:
        raise FewSpikesError(f"{what}: {spec.name} is a sequence of length 0; give one time step at least")
    remedy = f"{_mended(spec)}, or convert again with such an example"
    if tuple(value.shape) == spec.shape:
        raise FewSpikesError(
            f"{what}: {spec.name} is one image of shape {list(spec.shape)} without a batch axis; give x[None]"
        )
    raise FewSpikesError(
        f"{what}: {spec.name} has shape {_batch(value.shape)}, the network was converted for "
        f"{_batch((0, *('any length' if i in spec.free else n for i, n in enumerate(spec.shape))))}; {remedy}"
    )


def check_finite(values: Iterable[Tensor], what: str) -> None:
    """Raise FewSpikesError on NaN or inf."""
    for value in values:
        if value.is_floating_point() and not value.is_meta and not bool(value.isfinite().all()):
            raise FewSpikesError(f"{what} holds NaN or inf; clean it first")


def check_elements(named: Mapping[str, Tensor]) -> None:
    """Raise FewSpikesError for an example without elements, as a sequence of length 0 is."""
    for name, value in named.items():
        if not value.numel():
            raise FewSpikesError(
                f"example_inputs: {name} of shape {tuple(value.shape)} has no elements; give an axis of length 0 one "
                "position (one time step) at least"
            )


def check_autocast() -> None:
    """Raise FewSpikesError inside torch.autocast: half precision cannot hold the code."""
    if torch.is_autocast_enabled("cpu") or (torch.cuda.is_initialized() and torch.is_autocast_enabled("cuda")):
        raise FewSpikesError("FS-neurons compute in float32 or float64; leave torch.autocast for this call")


def _mended(spec: InputSpec) -> str:
    """What to do with inputs of another shape."""
    if len(spec.shape) == 3 and spec.shape[0] in _COLOURS:
        return "resize the images"
    return "pad or cut the sequences" if len(spec.shape) <= 2 else "give inputs of that shape"


def _lacks_batch(value: Tensor, spec: InputSpec) -> bool:
    return tuple(value.shape) == spec.shape


def _batch(shape: Sequence[int | str]) -> str:
    return "[batch" + "".join(f", {n}" for n in shape[1:]) + "]" if len(shape) else "[]"


def _describe(value: Any) -> str:
    return (
        f"{type(value).__name__} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )
