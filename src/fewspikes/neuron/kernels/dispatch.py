"""`apply`: gate inputs in, outputs and spike counts out, by the engine that is asked for."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import Parameter

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.neuron.kernels import compiled, cuda, operators, reference
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import cast
from fewspikes.neuron.tracing import check_tracing

_ENGINES = {"reference": reference.apply, "compiled": compiled.apply, "triton": cuda.apply}
_NEEDS = {
    "compiled": "the engine 'compiled' runs on the CPU without gradients; use engine='reference'",
    "triton": "the engine 'triton' runs on NVIDIA GPUs without gradients; use engine='reference'",
}


def apply(
    x: Float[Tensor, "*shape"], p: FSParameters, engine: str = "auto"
) -> tuple[Float[Tensor, "*shape"], UInt8[Tensor, "*shape"]]:
    """Run the FS-neuron on every element: y = c + sum over t of d[t] z[t], and how many spikes that took.

    Args:
        x: gate inputs, any shape and memory layout, float32 or float64. A NaN fires nothing and stays NaN.
        p: the neuron's parameters.
        engine: "auto" (the fastest at hand), "reference" (the plain loop, differentiable), "compiled" (on the CPU) or
            "triton" (on an NVIDIA GPU), both without gradients; all give identical bits.

    Returns:
        y in x's dtype and layout, and the spikes per element (0 to K).

    Raises:
        FewSpikesError: another dtype, or an engine that is unknown or cannot run here.

    >>> from fewspikes import relu_parameters
    >>> y, spikes = apply(torch.tensor([5.0, -1.0]), relu_parameters(K=3, alpha=8.0))
    >>> y.tolist(), spikes.tolist()
    ([5.0, 0.0], [2, 0])
    """
    check_tracing()
    return run(x, *cast(p, x), count=True, engine=engine)  # type: ignore[return-value]


def run(
    x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool, engine: str = "auto"
) -> tuple[Tensor, Tensor | None]:
    """`apply` with parameters that are tensors in x's dtype already; counts only if asked to."""
    if not isinstance(engine, str) or engine not in ("auto", *_ENGINES):
        raise FewSpikesError(f"unknown engine {said(engine)}; there are auto, {', '.join(_ENGINES)}")
    parameters = (T, h, d, offset)
    if engine == "auto" and _keeps_operators() and not reference.learns(x, *parameters):
        y, spikes = operators.staircase(x, *parameters)
        return y, spikes if count else None
    fits = "triton" if engine == "triton" and _plain(x, *parameters) and cuda.takes(x) else engine_for(x, *parameters)
    if engine in _NEEDS and engine != fits:
        raise FewSpikesError(_NEEDS[engine])
    return _ENGINES[fits if engine == "auto" else engine](x, *parameters, count)


def engine_for(x: Tensor, *others: Tensor) -> str:
    """The fastest engine for gate inputs x; `others` are what gradients may be wanted of besides."""
    if _plain(x, *others) and x.device.type == "cpu":
        return "compiled"
    return "triton" if _plain(x, *others) and x.device.type == "cuda" and cuda.AVAILABLE else "reference"


def _keeps_operators() -> bool:
    """Whether a compiler runs that knows `fewspikes::staircase`; ONNX does not, and gets the plain loop."""
    return torch.compiler.is_compiling() and not torch.onnx.is_in_onnx_export()


def _plain(x: Tensor, *others: Tensor) -> bool:
    """Whether x holds numbers that a kernel can take: no tracer's stand-in, and nothing learns."""
    known = type(x) in (Tensor, Parameter) and x.dtype in (torch.float32, torch.float64)
    return known and not reference.learns(x, *others) and not torch.compiler.is_compiling()
