"""Weights from a safetensors file into a module: every tensor finds its place, or nothing is done in silence."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `model` with the tensors of a .safetensors file, which must be exactly the model's.

    Raises:
        FewSpikesError: no such file, another format (pickles are never opened), or tensors that are missing, left
            over, or of another shape.
    """
    path = Path(path)
    tensors, own = _read(path), model.state_dict()
    wrong = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    what = f"wrong shapes {_first(wrong)}"
    if not wrong:
        result = model.load_state_dict(tensors, strict=False)
        wrong = [*result.missing_keys, *result.unexpected_keys]
        what = f"missing {_first(result.missing_keys)}, left over {_first(result.unexpected_keys)}"
    if wrong:
        kind = type(model).__name__
        raise FewSpikesError(f"{path} does not fit {kind}: {what}; give the weights of this very model")


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FewSpikesError(f"no weights file {path}; give the path of a .safetensors file")
    if path.suffix.lower() in _PICKLES:
        target = path.with_suffix(".safetensors").name
        raise FewSpikesError(
            f'{path} may be a pickle, which can run code; convert it: python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{path}', map_location='cpu', weights_only=True), '{target}')\""
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FewSpikesError(f"{path} is no readable safetensors file ({error}); write it again") from None


def _first(names: Sequence[str]) -> str:
    return (", ".join(names[:3]) or "nothing") + (f" and {len(names) - 3} more" if len(names) > 3 else "")
