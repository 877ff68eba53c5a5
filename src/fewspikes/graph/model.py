"""What a model must be before it is captured, and in which order it takes its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, signature

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.inputs import InputSpec, oddity

_QUANTISED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
    "torch.ao.quantization.observer",
    "torch.ao.quantization.fake_quantize",
)
_FLOATING = ("FloatFunctional", "FXFloatFunctional")  # plain sums and products, though torch keeps them there


def inner(model: nn.Module) -> nn.Module:
    """The network inside of torch.compile's or a data parallel wrapper, which compute the same.

    Raises:
        FewSpikesError: no module.
    """
    if not isinstance(model, nn.Module):
        exported = "; give the module that it was exported from" if hasattr(model, "graph_signature") else ""
        raise FewSpikesError(f"the model must be a torch.nn.Module; got {type(model).__name__}{exported}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return inner(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return inner(compiled) if isinstance(compiled, nn.Module) else model


def check_model(model: nn.Module) -> None:
    """Raise FewSpikesError unless it is in eval mode and of plain modules with plain, finite float weights."""
    for name, module in model.named_modules():
        _check_module(name or "the model", module)
    training = next((name or "the model" for name, module in model.named_modules() if module.training), None)
    if training is not None and "eval" in vars(model):  # torch.export's modules refuse it
        raise FewSpikesError("the model comes out of torch.export; give the module that it was exported from")
    if training is not None:
        raise FewSpikesError(f"{training} is in training mode; call model.eval() before converting")
    for name, tensor in _weights(model):
        _check_weight(name, tensor)


def _check_module(name: str, module: nn.Module) -> None:
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise FewSpikesError(f"{name} is a script module (torch.jit); give the nn.Module that it was made from")
    if kind.__module__.startswith(_QUANTISED) and kind.__name__ not in _FLOATING:
        raise FewSpikesError(
            f"{name} is quantised by torch.ao ({kind.__name__}); give the float model that it was made from"
        )


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _check_weight(name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise FewSpikesError(f"weight {name} has no values yet; run the model once, or load its weights, first")
    odd = oddity(tensor)
    if odd:
        raise FewSpikesError(f"weight {name} is {odd}; a plain tensor of real numbers is needed in its place")
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        raise FewSpikesError(f"weight {name} is {tensor.dtype}; convert the model with model.float() first")
    if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
        raise FewSpikesError(f"weight {name} holds NaN or inf; a trained network with finite weights is needed")


def check_together(model: nn.Module, named: Mapping[str, Tensor], inputs: Sequence[InputSpec]) -> None:
    """Raise FewSpikesError unless inputs and weights share their floating dtype and their device."""
    weight = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    for spec in inputs:
        if weight is not None and spec.dtype.is_floating_point and spec.dtype != weight:
            raise FewSpikesError(
                f"input {spec.name} is {spec.dtype}, the model's weights are {weight}; make them equal"
            )
    given = {f"input {name}": value.device for name, value in named.items()}
    given |= {f"weight {name}": tensor.device for name, tensor in _weights(model) if tensor.ndim}
    (first, device), *rest = given.items()
    for name, other in rest:
        if other != device:
            empty = "; meta holds no values" if "meta" in (other.type, device.type) else ""
            raise FewSpikesError(f"{first} is on {device}, {name} on {other}{empty}; bring them together with .to()")


def in_order(model: nn.Module, named: Mapping[str, Tensor], keywords: bool) -> dict[str, Tensor]:
    """The inputs in the order in which `forward` names them, whatever the order of a dict.

    Args:
        model: the network.
        named: the example, by name.
        keywords: whether these are the names of forward's arguments; otherwise only their order counts.

    Raises:
        FewSpikesError: a forward that takes other inputs, or **kwargs.
    """
    kind = type(model).__name__
    wanted = signature(model.forward).parameters
    open_ended = next((p.name for p in wanted.values() if p.kind is Parameter.VAR_KEYWORD), None)
    if keywords and open_ended is not None and set(named) - set(wanted):
        raise FewSpikesError(
            f"forward of {kind} takes **{open_ended}, whose names torch.export loses; name its inputs, as in "
            f"forward(self, {', '.join(named)})"
        )
    try:
        signature(model.forward).bind(*(() if keywords else named.values()), **(named if keywords else {}))
    except TypeError as error:
        got = f"by the names {', '.join(map(str, named))}" if keywords else f"{len(named)} by position"
        remedy = f"give a dict of these, such as {{{next(iter(wanted), 'x')!r}: tensor, ...}}"
        raise FewSpikesError(f"forward of {kind} takes {_listed(wanted)}; got {got} ({error}); {remedy}") from None
    return {name: named[name] for name in wanted if name in named} if keywords else dict(named)


def misplaced(model: nn.Module, named: Mapping[str, Tensor]) -> frozenset[str]:
    """The inputs, given by name, that forward takes behind one that is not given."""
    free = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    places = [p.name for p in signature(model.forward).parameters.values() if p.kind in free]
    first = next((i for i, name in enumerate(places) if name not in named), len(places))
    return frozenset(places[first:]) & frozenset(named)


def _listed(wanted: Mapping[str, Parameter]) -> str:
    names: list[str] = [str(p).partition(":")[0].partition("=")[0].strip() for p in wanted.values()]
    by_name = [p.name for p in wanted.values() if p.kind is Parameter.KEYWORD_ONLY]
    return (", ".join(names) or "nothing") + (f" ({', '.join(by_name)} by name only)" if by_name else "")
