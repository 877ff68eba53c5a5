"""Why torch.export gave up, in words that say what to do."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

_AXES = 4  # of a batch of pictures; an example with as many has its batch axis
_REMEDIES = (  # words of torch's own message, what they mean, and what to do
    (
        "satisfy the generated guard",
        "it takes the batch apart, as x[1:] and x.view(4, -1) do, or branches on its size",
        "a spiking network computes each image by itself: let forward keep the batch whole",
    ),
    (
        "Constraints violated",
        "its batch size became a fixed number",
        "axis 0 of every input must be the batch (of one image x give x[None]), and forward must leave its size open: "
        "x.shape[0] does, len(x) and int(x.shape[0]) freeze it",
    ),
    (
        "data-dependent",
        "it branches on the values of a tensor",
        "such a branch cannot be captured: use torch.where, or convert the part of the network without it",
    ),
    (
        "Expected hidden",
        "its states do not fit its inputs",
        "axis 0 of every input must be the batch, that of states, too: give them as [batch, layers, numbers], and turn "
        "them in forward by h.transpose(0, 1), as docs/guide.md shows",
    ),
    (
        "ScriptModule",
        "a part of it is a script module (torch.jit)",
        "give the nn.Module that it was made from",
    ),
)
_PACKED = (
    "its sequences are packed, which torch.export cannot hold; give sequences of one length: run the module on the "
    "padded batch, and pick the last valid outputs by a mask that is one more input"
)
_RECURRENT = ("nn/modules/rnn.py", "nn/utils/rnn.py")  # of torch; there nothing but packing depends on values
_USUAL = (
    "its forward must run on the example inputs (is their size right, is axis 0 the batch?), with any batch size "
    "and no branch on tensor values"
)


def reason_of(
    error: BaseException, model: nn.Module, named: Mapping[str, Tensor], runs_batched: Callable[[], bool]
) -> str:
    """One line for what torch.export, or the model in it, raised.

    Args:
        error: what it raised.
        model: the network.
        named: the example.
        runs_batched: whether the model could be captured with one more axis in front of the example's.
    """
    if isinstance(error, SystemExit):
        return "its forward called sys.exit; it must return tensors"
    if all(value.ndim < _AXES for value in named.values()) and runs_batched():
        return (
            f"the example of shape {', '.join(str(tuple(v.shape)) for v in named.values())} has no batch axis in "
            "front; give x[None]"
        )
    if _is_in(error, _RECURRENT) and any(words in str(error) for words in ("data-dependent", "FakeTensor")):
        return _PACKED
    said = str(error).strip() or type(error).__name__
    turned = next((name for name, module in model.named_modules() if _has_its_batch_second(module)), None)
    if turned is not None and "Constraints violated" in said:
        kind = type(model.get_submodule(turned)).__name__
        return (
            f"its batch size became a fixed number: {turned or 'the model'} ({kind}) takes the batch on axis 1, and "
            "axis 0 of every input must be the batch; make it with batch_first=True (the weights stay the same), or "
            "transpose in forward"
        )
    for words, meaning, remedy in _REMEDIES:
        if words in said:
            return f"{meaning}; {remedy}"
    whole = [f"{name} is {value.dtype}" for name, value in named.items() if not value.is_floating_point()]
    remedy = f"{', '.join(whole)}: give floats, as by x.float(), where the weights are floats" if whole else _USUAL
    return f"{said.splitlines()[0].rstrip('.')}; {remedy}"


def _is_in(error: BaseException, files: tuple[str, ...]) -> bool:
    """Whether an error was raised in one of these files, or in what they called."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.endswith(files) for frame in frames)


def _has_its_batch_second(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase | nn.MultiheadAttention) and not module.batch_first


def is_interruption(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind an error: torch's C++ makes other errors of it on the way."""
    seen: list[Any] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
