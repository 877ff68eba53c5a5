"""Weights from a safetensors file into a module: every tensor finds its place, or nothing is done in silence."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError, warn

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `model` with the tensors of a .safetensors file, which must be exactly the model's.

    A prefix that all its names have in front of the model's own ("module." of a data parallel wrapper) is taken off.

    Raises:
        FewSpikesError: no such file, another format (pickles are never opened), or tensors that are missing, left
            over, or of another shape.

    Warns:
        FewSpikesWarning: a prefix was taken off.
    """
    path = Path(path)
    own = model.state_dict()
    tensors = _without_prefix(_read(path), own, path)
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
            f"w = torch.load('{path}', map_location='cpu', weights_only=True); "
            "w = w.get('state_dict', w.get('model', w)); "
            "w = {k.removeprefix('module.'): v.clone() for k, v in w.items() if isinstance(v, torch.Tensor)}; "
            f"s.save_file(w, '{target}')\""
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FewSpikesError(f"{path} is no readable safetensors file ({error}); write it again") from None


def _without_prefix(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
    """The tensors by the model's names, where each of their names is one with the same words in front."""
    last = min(own, default="")
    found = (name.removesuffix(last) for name in tensors if name.endswith(f".{last}"))
    prefix = next((words for words in found if {f"{words}{name}" for name in own} == set(tensors)), "")
    if prefix and last:
        warn(f"the names in {path} begin with {prefix!r}, which is none of the model's; it was taken off")
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _first(names: Sequence[str]) -> str:
    return (", ".join(names[:3]) or "nothing") + (f" and {len(names) - 3} more" if len(names) > 3 else "")
