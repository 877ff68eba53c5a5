"""`apply`: gate inputs in, outputs and spike counts out, by the engine that is asked for."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import Parameter

from fewspikes.errors import FewSpikesError
from fewspikes.kernels import compiled, reference
from fewspikes.neuron import cast
from fewspikes.parameters import FSParameters

ENGINES = ("reference", "compiled")


def apply(
    x: Float[Tensor, "*shape"], p: FSParameters, engine: str = "auto"
) -> tuple[Float[Tensor, "*shape"], UInt8[Tensor, "*shape"]]:
    """Run the FS-neuron on every element: y = c + sum over t of d[t] z[t], and how many spikes that took.

    Args:
        x: gate inputs, any shape and memory layout, float32 or float64. A NaN fires nothing and stays NaN.
        p: the neuron's parameters.
        engine: "auto" (the fastest at hand), "reference" (the plain loop, differentiable) or "compiled" (on the CPU,
            without gradients); all give identical bits.

    Returns:
        y in x's dtype and layout, and the spikes per element (0 to K).

    Raises:
        FewSpikesError: another dtype, or an engine that is unknown or cannot run here.

    >>> from fewspikes import relu_parameters
    >>> y, spikes = apply(torch.tensor([5.0, -1.0]), relu_parameters(K=3, alpha=8.0))
    >>> y.tolist(), spikes.tolist()
    ([5.0, 0.0], [2, 0])
    """
    y, spikes = run(x, *cast(p, x), count=True, engine=engine)
    assert spikes is not None
    return y, spikes


def run(
    x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool, engine: str = "auto"
) -> tuple[Tensor, Tensor | None]:
    """`apply` with parameters that are tensors in x's dtype already; counts only if asked to."""
    if engine not in ("auto", *ENGINES):
        raise FewSpikesError(f"unknown engine {engine!r}; there are auto, {', '.join(ENGINES)}")
    plain = type(x) in (Tensor, Parameter) and x.device.type == "cpu"  # not a tracer's stand-in
    fits = plain and not reference.learns(x, T, h, d, offset) and not torch.compiler.is_compiling()
    if engine == "compiled" and not fits:
        raise FewSpikesError("the engine 'compiled' runs on the CPU without gradients; use engine='reference'")
    chosen = compiled.apply if fits and engine != "reference" else reference.apply
    return chosen(x, T, h, d, offset, count)
