"""Tracers that would record a neuron wrongly, refused with those that keep it whole."""

from typing import Any, NoReturn

import torch

from fewspikes.base.errors import FewSpikesError

_INSTEAD = "use torch.export, torch.onnx.export(dynamo=True) or fewspikes.save"
_PROXIES = torch._C._TorchDispatchModeKey.PROXY


def check_tracing(args: Any = ()) -> None:
    """Raise FewSpikesError inside torch.jit.trace, the legacy ONNX exporter, make_fx, or torch.fx.symbolic_trace.

    They see the operators of torch alone, and the engines run neurons beside them: what they record computes
    something else. torch.compile and torch.export know the operator `fewspikes::staircase`. `args` are those that the
    network was called with.
    """
    if torch.compiler.is_compiling():
        return
    if not isinstance(args, tuple):  # a proxy of all arguments
        raise FewSpikesError(f"torch.fx.symbolic_trace cannot see FS-neurons; {_INSTEAD}")
    if torch._C._get_tracing_state() is not None:
        raise FewSpikesError(f"torch.jit.trace and torch.onnx.export(dynamo=False) cannot see FS-neurons; {_INSTEAD}")
    if torch._C._get_dispatch_mode(_PROXIES) is not None or torch._ops._get_dispatch_mode_pre_dispatch(_PROXIES):
        raise FewSpikesError(f"make_fx cannot see FS-neurons; {_INSTEAD}")


def refuse_script() -> NoReturn:
    """What torch.jit.script is told."""
    raise FewSpikesError(f"torch.jit.script cannot take FS-neurons; {_INSTEAD}")
