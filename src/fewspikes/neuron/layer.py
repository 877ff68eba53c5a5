"""`FSNeuron`: the neuron as a module, with a place for whoever counts its spikes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewspikes.base.checks import said, whole
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.moments import Moment
from fewspikes.base.sums import count_true
from fewspikes.neuron.kernels import compiled, cuda
from fewspikes.neuron.kernels.dispatch import engine_for, run
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import cast
from fewspikes.neuron.tracing import check_tracing, refuse_script

PER_CHANNEL = ("shift", "scale", "gain")
Observer = Callable[[Tensor, Tensor], None]
Tally = Callable[[Any, Any], None]
_overwriting: ContextVar[frozenset["FSNeuron"]] = ContextVar("overwriting", default=frozenset())


@contextmanager
def overwriting(neurons: frozenset["FSNeuron"]) -> Iterator[None]:
    """Inside the block these layers may write their outputs over their gate inputs: nothing else needs those."""
    token = _overwriting.set(neurons)
    try:
        yield
    finally:
        _overwriting.reset(token)


class FSNeuron(nn.Module):
    """A layer of FS-neurons that share one code, each channel with a shift, scale and gain of its own if it has them.

    With shift s, scale r and gain g of a channel, f̂ the code's staircase:  y = g r f̂((x + s) / r).  The shift is a
    bias current. Scale and gain need no neuron of their own either: 1/r goes into the weights before, g r into those
    after.

    Differentiable: the spikes' pseudo-derivative is the triangle max(0, 1 - |v - T|).

    Args:
        parameters: T, h, d and offset; the module computes in its input's dtype.
        shift: s per channel, [C], or None for 0.
        scale: r > 0 per channel, [C], or None for 1.
        gain: g > 0 per channel, [C], or None for 1.
        axis: the channels' axis of the gate inputs.

    Attributes:
        code: the parameters.
        spike_hooks: functions (gate inputs as the code sees them, spikes per element) called after each forward pass.
        count_hooks: functions (spikes, gate inputs outside the code's domain) called likewise; they cost no time.
            Both are whole numbers, on a GPU int64 scalars there.

    Raises:
        FewSpikesError: a shift, scale or gain that is not finite or no vector, or a scale or gain that is not positive.

    Source: paper, Fig. 2b.

    >>> from fewspikes import relu_parameters
    >>> FSNeuron(relu_parameters(K=3, alpha=8.0))(torch.tensor([5.3, -1.0]))
    tensor([5., 0.])
    """

    shift: Tensor | None
    scale: Tensor | None
    gain: Tensor | None

    def __init__(
        self,
        parameters: FSParameters,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
        axis: int = 1,
        *,
        gain: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.code = parameters
        self.axis = whole("axis", axis, 0)
        for kind, values in zip(PER_CHANNEL, (shift, scale, gain), strict=True):
            self.register_buffer(kind, _vector(kind, values))
            if values is not None and kind != "shift" and not bool((values > 0).all()):
                raise FewSpikesError(f"a {kind} must be > 0 in every channel")
        self.spike_hooks: list[Observer] = []
        self.count_hooks: list[Tally] = []
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._tables: dict[torch.dtype, compiled.Table] = {}
        with torch.inference_mode(False):
            self._exact = cast(parameters, torch.empty((), dtype=torch.float64))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """y = g r f̂((x + s) / r), elementwise.

        Raises:
            FewSpikesError: neither float32 nor float64, or a tracer that cannot see neurons.
        """
        check_tracing()
        engine = "reference" if self.spike_hooks else engine_for(x, *self.by_channel.values())
        if engine != "reference":
            return self._in_one_pass(x, engine)
        x = self.gate(x)
        y, spikes = run(x, *self.parameters_for(x), count=bool(self.spike_hooks or self.count_hooks))
        if spikes is not None:
            for observe in tuple(self.spike_hooks):
                observe(x.detach(), spikes)
            for tally in tuple(self.count_hooks):
                tally(int(spikes.sum(dtype=torch.int64)), count_outside(x, self.code.domain))
        return self.ungate(y)

    def _in_one_pass(self, x: Tensor, engine: str) -> Tensor:
        """Gate, recurrence, counts and output without anything kept between them."""
        channels = self._channels(x) if self.by_channel else None
        over = self in _overwriting.get() and not self._forward_hooks and not self._forward_pre_hooks
        seen: Sequence[Any]
        if engine == "compiled":
            if x.dtype not in self._tables:
                self._tables[x.dtype] = compiled.table(*self.parameters_for(x))
            own = None if channels is None else compiled.Channels(*(v.numpy() for v in channels))
            y, *seen = compiled.layer(x, self._tables[x.dtype], own, self.axis, self.code.domain, over)
        else:
            y, *seen = cuda.layer(x, self.parameters_for(x), channels, self.axis, self.code.domain, over)
        for tally in tuple(self.count_hooks):
            tally(*seen)
        return y

    def _channels(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shift, scale, and scale x gain in x's dtype."""
        like = next(iter(self.by_channel.values()))
        if self.axis >= x.ndim or x.shape[self.axis] != len(like):
            raise FewSpikesError(f"{len(like)} channels on axis {self.axis} wanted; got shape {tuple(x.shape)}")
        shift = torch.zeros_like(like) if self.shift is None else self.shift
        scale, gain = (torch.ones_like(like) if v is None else v for v in (self.scale, self.gain))
        return shift.to(x.dtype), scale.to(x.dtype), scale.to(x.dtype) * gain.to(x.dtype)

    @property
    def by_channel(self) -> dict[str, Tensor]:
        """Its shift, scale and gain, by these names; only those that it has."""
        return {kind: values for kind in PER_CHANNEL if (values := getattr(self, kind)) is not None}

    def replace(self, **by_channel: Tensor | None) -> "FSNeuron":
        """The same layer without its spike_hooks, and with another shift, scale or gain."""
        return FSNeuron(self.code, axis=self.axis, **{**self.by_channel, **by_channel})

    def gate(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What the code sees of the gate inputs: (x + s) / r."""
        if self.shift is not None:
            x = x + per_channel(self.shift, x, self.axis)
        return x if self.scale is None else x / per_channel(self.scale, x, self.axis)

    def ungate(self, y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What the layer makes of the code's outputs: g r y."""
        factor = self._factor(y.dtype)
        return y if factor is None else y * per_channel(factor, y, self.axis)

    def worth(self, d: Float[Tensor, "K"]) -> Float[Tensor, "K C"]:
        """What a spike of each step is worth: g r d by channel; one column where all channels are alike."""
        factor = self._factor(d.dtype)
        return d[:, None] if factor is None else d[:, None] * factor

    def _factor(self, dtype: torch.dtype) -> Tensor | None:
        factors = [v.to(dtype) for v in (self.scale, self.gain) if v is not None]
        return reduce(torch.mul, factors) if factors else None

    def parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The parameters in x's dtype and on its device, kept for the next call."""
        if torch.compiler.is_compiling():  # a compiler sees tensors, not the code's arrays
            T, h, d, offset = (value.to(x.device, x.dtype) for value in self._exact)
            return T, h, d, offset
        key = (x.dtype, x.device)
        if key in self._cast:
            return self._cast[key]
        with torch.inference_mode(False):  # the next call may want gradients
            made = cast(self.code, x)
        if type(made[0]) is Tensor:  # not one of a tracer's stand-ins
            self._cast[key] = made
        return made

    def threshold(self, x: Tensor, t: int, when: Moment) -> Tensor:
        """The threshold of step t (from 0) in x's dtype, one for all neurons or each its own."""
        return self.parameters_for(x)[0][t]

    def heard(self, z: Tensor, before: Tensor | None, t: int, when: Moment) -> Tensor:
        """How many spikes the receivers hear in step t (from 0) of those sent in it, z, and in the step before."""
        return z

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: whoever counts here does not count there."""
        return {**self.__dict__, "spike_hooks": [], "count_hooks": []}

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first."""
        refuse_script()

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        own = "".join(f", {name} per channel" for name in self.by_channel)
        return f"{self.code.activation}, K={self.code.K}{own}"


def per_channel(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """A vector [C] in the dtype of `like` and in a shape that broadcasts along its `axis`."""
    shape = [1] * like.ndim
    shape[axis] = len(values)
    return values.to(like.dtype).view(shape)


def count_outside(x: Tensor, domain: tuple[float, float]) -> int:
    """How many elements lie outside the domain; NaN does not."""
    low, high = domain
    if not x.numel():
        return 0
    lowest, highest = x.aminmax()  # NaN if any is; most layers have nothing outside
    below = count_true(x < low) if not lowest >= low else 0
    return below + (count_true(x > high) if not highest <= high else 0)


def _vector(name: str, values: Tensor | None) -> Tensor | None:
    if values is None:
        return None
    dense = isinstance(values, Tensor) and values.layout == torch.strided and not values.is_nested
    if not dense or values.ndim != 1 or not values.is_floating_point() or not bool(values.isfinite().all()):
        shape = f"{values.dtype} {tuple(values.shape)}" if dense else said(values)
        raise FewSpikesError(f"{name} must be a vector of finite numbers, one per channel; got {shape}")
    return values.detach().clone()
