"""An operator on trial: a call as it stands in a network, on random numbers in place of its signals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import reason_of
from fewspikes.graph.functions import function, in_order, parameters
from fewspikes.graph.graph import CONSTANT, INPUT, Batch, Ref, Size, refs, replaced
from fewspikes.operators.call import IMAGES, Call

_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}  # of the largest value: an operator may round inside
_PROBES = 8  # elements of a signal that are followed
_SEED = 0


class Trial:
    """One call of an operator on random numbers.

    Args:
        call: of a graph with the shapes of its tensors.
        tensors: the graph's constants.
        dtypes: of the graph's inputs, by node; other signals are floats.

    Raises:
        FewSpikesError: the operator does not run on random numbers.
    """

    def __init__(self, call: Call, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> None:
        self.call, self.node, self._tensors, self._dtypes = call, call.node, tensors, dtypes
        self._random = torch.Generator().manual_seed(_SEED)
        self.device = next((tensor.device for tensor in tensors.values() if tensor.ndim), torch.device("cpu"))
        self.signals = tuple(ref for ref in dict.fromkeys(refs(self.node.arguments)) if ref.name in call.carriers)
        self.dtype = torch.float64
        try:
            self.run(self.arguments(self.numbers()))
        except Exception:
            self.dtype = torch.float32
            try:
                self.run(self.arguments(self.numbers()))
            except Exception as error:
                raise FewSpikesError(f"{self.node.where} does not run on random numbers: {reason_of(error)}") from error

    @property
    def tolerance(self) -> float:
        """What two ways to compute one thing may differ by, as a share of its largest value."""
        return _TOLERANCE[self.dtype]

    def numbers(self, spread: float = 1.0) -> dict[str, Tensor]:
        """Random numbers for every signal, by node."""
        return {ref.name: self._numbers(ref.name, spread) for ref in self.signals}

    def arguments(self, signals: Mapping[str, Tensor]) -> dict[str, Any]:
        """The call's arguments with these signals."""
        return {name: replaced(value, lambda ref: self.value(ref, signals)) for name, value in self._given.items()}

    def run(self, arguments: Mapping[str, Any]) -> list[Tensor]:
        """What the operator gives, one tensor for each result."""
        return called(self.node.operator, arguments)

    def results(self, signals: Mapping[str, Tensor]) -> list[Tensor]:
        """What the operator gives for these signals."""
        return self.run(self.arguments(signals))

    def passes_gradients(self, needed: bool = True) -> bool:
        """Whether a gradient comes back from the results to the signals; it need not from what depends on none."""
        with torch.inference_mode(False), torch.enable_grad():
            signals = {name: x.requires_grad_(x.is_floating_point()) for name, x in self.numbers().items()}
            args, kwargs = in_order(self.node.operator, self.arguments(signals))
            found = function(self.node.operator)(*args, **kwargs)
            results = list(found) if isinstance(found, list | tuple) else [found]
            return leads_back(results, [x for x in signals.values() if x.requires_grad], needed)

    def constant(self, name: str) -> Tensor:
        """One of the graph's constants, floats in the trial's own dtype."""
        tensor = self._tensors[name]
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    @property
    def constants(self) -> dict[str, Tensor]:
        """All of the graph's constants."""
        return {name: self.constant(name) for name in self._tensors}

    def positives(self, count: int) -> Tensor:
        """So many random numbers from 0.5 to 1.5."""
        return (torch.rand(count, generator=self._random, dtype=torch.float64) + 0.5).to(self.device, self.dtype)

    def order(self, count: int) -> Tensor:
        """So many places in a random order."""
        return torch.randperm(count, generator=self._random).to(self.device)

    @property
    def _given(self) -> dict[str, Any]:
        own = {p.name for p in parameters(self.node.operator) if p.name == "device"}
        return {**self.node.arguments, **dict.fromkeys(own, self.device)}

    def value(self, ref: Ref, signals: Mapping[str, Tensor]) -> Any:
        """The value of a node for these signals, where it is a signal, or made of constants and shapes alone."""
        if ref.name in signals:
            return signals[ref.name]
        node = self.call.graph[ref.name]
        if node.operator == CONSTANT:
            return self.constant(node.arguments["tensor"])
        if ref.name in self.call.carriers:  # its shape alone is asked for
            return torch.zeros(self._sizes(ref.name, signals), dtype=self.dtype, device=self.device)
        if node.operator == INPUT:  # whole numbers that tables are looked up by, or masks
            return torch.ones(self._sizes(ref.name, signals), dtype=self._dtypes[ref.name], device=self.device)
        given = {name: replaced(value, lambda r: self.value(r, signals)) for name, value in node.arguments.items()}
        args, kwargs = in_order(node.operator, given)
        return function(node.operator)(*args, **kwargs)

    def _sizes(self, name: str, signals: Mapping[str, Tensor]) -> torch.Size:
        """The shape of a node where the signals are of as many images as they are."""
        shapes = ((self.call.graph[one].shape or (), value.shape) for one, value in signals.items())
        axes = ((shape[axis], sizes[axis]) for shape, sizes in shapes if (axis := batch_axis(shape)) is not None)
        images = next((size // batch.times for batch, size in axes if isinstance(batch, Batch)), IMAGES)
        return self.call.graph.sizes(name, images)

    def _numbers(self, name: str, spread: float) -> Tensor:
        shape, dtype = self.call.graph.sizes(name, IMAGES), self._dtypes.get(name, self.dtype)
        if not dtype.is_floating_point:
            return torch.randint(0, 2, shape, generator=self._random).to(self.device, dtype)
        return (spread * torch.randn(shape, generator=self._random, dtype=torch.float64)).to(self.device, self.dtype)

    def places(self, count: int) -> Iterator[int]:
        """Some of so many elements: the first, the last, and any others."""
        yield from dict.fromkeys([0, count - 1, *torch.randint(count, (_PROBES,), generator=self._random).tolist()])


def batch_axis(shape: Sequence[Size]) -> int | None:
    """The axis whose positions are images, each one or several of them."""
    return next((axis for axis, size in enumerate(shape) if isinstance(size, Batch)), None)


def leads_back(results: Sequence[Tensor], signals: Sequence[Tensor], needed: bool) -> bool:
    """Whether a pass backwards leads from results to signals; without `needed` it may end before."""
    ends = [value for value in results if value.requires_grad]
    if not ends or not signals:
        return not needed
    try:
        torch.autograd.grad([value.sum() for value in ends], signals, allow_unused=True)
    except RuntimeError:
        return False
    return True


def called(operator: str, arguments: Mapping[str, Any]) -> list[Tensor]:
    """What an operator gives, one tensor for each result."""
    args, kwargs = in_order(operator, arguments)
    with torch.no_grad():
        found = function(operator)(*args, **kwargs)
    return list(found) if isinstance(found, list | tuple) else [found]


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, as a share of the largest value."""
    if [value.shape for value in found] != [value.shape for value in wanted]:
        return float("inf")
    shares = [_share(a.double(), b.double()) for a, b in zip(found, wanted, strict=True)]
    return max(shares, default=0.0)


def _share(a: Tensor, b: Tensor) -> float:
    if not a.numel() or torch.equal(a, b):
        return 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    away = torch.where(same, torch.zeros_like(a), (a - b).abs()).max()
    size = torch.cat([v[v.isfinite()].flatten() for v in (a, b)]).abs()
    found = float(away / size.max().clamp_min(1e-300)) if size.numel() else float("inf")
    return found if found == found else float("inf")


def told(what: str, share: float) -> str:
    """What differs, and by how much."""
    by = "in shape or in numbers that are not finite" if share == float("inf") else f"by {100 * share:.3g}%"
    return f"{what} {by}" + ("" if share == float("inf") else " of the largest value")
