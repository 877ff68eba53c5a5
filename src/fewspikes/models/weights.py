"""Weights from a safetensors file into a module: every tensor finds its place, or nothing is done in silence."""

import os
from collections.abc import Iterable, Mapping
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
    tensors = _read(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [
        f"{name} {tuple(tensor.shape)} for {shapes[name]}"
        for name, tensor in tensors.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
    ]
    if wrong:
        raise FewSpikesError(f"{path} does not fit {_name(model)}: wrong shapes {_first(wrong)}; {_REMEDY}")
    result = model.load_state_dict(tensors, strict=False)
    if result.missing_keys or result.unexpected_keys:
        missing, left = _first(result.missing_keys), _first(result.unexpected_keys)
        raise FewSpikesError(f"{path} does not fit {_name(model)}: missing {missing}, left over {left}; {_REMEDY}")


_REMEDY = "give the weights of this very model"


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


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "nothing") + more


def _name(model: nn.Module) -> str:
    return type(model).__name__
