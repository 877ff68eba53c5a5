"""Weights from a file or a folder into a module: every tensor finds its place, or nothing is done in silence."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.files import reason_of

_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")  # as torch.save writes them
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FORMS = "give a .safetensors file, a .pth file of torch.save, or a folder with one"
# Under which names training scripts keep the weights beside other things, the likeliest first.
_ENTRIES = ("state_dict", "model_state_dict", "model", "module", "state_dict_ema", "model_ema")


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `model` with the tensors of a file or of a folder with one, which must be exactly the model's.

    A .safetensors file, or one of torch.save, of which nothing but tensors is read (weights_only=True: its pickle can
    run no code). A prefix that all its names have in front of the model's own ("module." of a data parallel wrapper) is
    taken off. A tensor that the model has under two names may be there once.

    Raises:
        FewSpikesError: no such file, another format, or tensors that are missing, left over, or of another shape.

    Warns:
        FewSpikesWarning: a prefix was taken off, or one of several sets of weights was taken.
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
        given = {_place(own[name]) for name in own if name in tensors}
        missing = [name for name in result.missing_keys if _place(own[name]) not in given]
        wrong = [*missing, *result.unexpected_keys]
        what = f"missing {_first(missing)}, left over {_first(result.unexpected_keys)}"
    if wrong:
        kind = type(model).__name__
        raise FewSpikesError(f"{path} does not fit {kind}: {what}; give the weights of this very model")


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr() or id(tensor), tensor.shape


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.is_dir():
        return {name: tensor for file in _files(path) for name, tensor in _read(file).items()}
    if not path.is_file():
        raise FewSpikesError(f"no weights file {path}; {_FORMS}")
    if path.suffix.lower() in _TORCH:
        return _of_torch(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FewSpikesError(f"{path} is no readable safetensors file ({error}); write it again") from None


def _files(folder: Path) -> list[Path]:
    """The file with the weights in a folder; several where its index says that they are spread."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    if (folder / _INDEX).is_file():
        return [folder / name for name in _listed(folder / _INDEX)]
    safe = sorted(folder.glob("*.safetensors"))
    found = safe or sorted(file for file in folder.iterdir() if file.suffix.lower() in _TORCH)
    if len(found) != 1:
        names = (
            f"several: {', '.join(file.name for file in found[:3])}; give one of them" if found else f"none; {_FORMS}"
        )
        raise FewSpikesError(f"one file of weights was looked for in {folder}; it has {names}")
    return found


def _listed(index: Path) -> list[str]:
    """The files that an index names, which must lie beside it."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("it names files elsewhere")
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise FewSpikesError(f"{index} is no index of weights ({reason_of(error)}); write it again") from None
    return names


def _of_torch(path: Path) -> Mapping[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly every class there is
        raise FewSpikesError(
            f"{path} is not read: it holds more than tensors, which could run code, or is damaged "
            f"({type(error).__name__}); save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    found = {"": content, **(content if isinstance(content, Mapping) else {})}
    whole: dict[str, Mapping[str, Tensor]] = {
        name: found[name] for name in ("", *_ENTRIES) if _is_weights(found.get(name))
    }
    if not whole:
        has = ", ".join(map(said, list(content)[:3])) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise FewSpikesError(f"{path} holds no weights by name but {has}; save model.state_dict()")
    (name, tensors), *others = whole.items()
    if others:
        unused = ", ".join(repr(other) for other, _ in others)
        warn(f"{path} has several sets of weights; {name!r} was taken, not {unused}")
    return tensors


def _is_weights(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


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
