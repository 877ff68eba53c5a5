"""Tensors in one safetensors file with sealed JSON beside them: never pickle, the same bytes for the same content."""

import json
import os
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, reason_of, shown, write_aside
from fewspikes.base.seals import TRIPS, Kind, parsed

_ENTRY = "fewspikes"  # one entry of metadata: several come in an order of chance
_ALIGNED = 64  # bytes; products of matrices round differently on memory that is not


def aligned(tensor: Tensor) -> Tensor:
    """Dense and on memory as torch itself lays it out, so that no result depends on what the tensor was cut from.

    Channels that lie last in memory stay there.
    """
    dense = tensor if has_channels_last(tensor) else tensor.contiguous()
    return dense.clone() if dense.device.type == "cpu" and dense.data_ptr() % _ALIGNED else dense


def has_channels_last(tensor: Tensor) -> bool:
    """Whether images' channels lie last in memory; convolutions round differently then."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def write_tensors(
    path: str | os.PathLike[str], kind: Kind, content: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors and plain JSON data, sealed together.

    Raises:
        FewSpikesError: it cannot be written there, or is no plain JSON data.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = json.dumps(kind.seal(content, whole), allow_nan=False)
    write_aside(path, safetensors.torch.save(whole, {_ENTRY: described}))


def read_tensors(path: str | os.PathLike[str], kind: Kind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write_tensors` wrote, the tensors on the CPU, in memory of their own.

    Raises:
        FewSpikesError: it cannot be read, is of another kind or version, or was changed since it was written.
    """
    path = as_path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            # Not get_tensor's own memory: there they lie as in the file, wherever it has put them.
            with torch.inference_mode(False):
                tensors = {name: file.get_tensor(name).clone() for name in names}
        if _ENTRY not in metadata:
            is_old = metadata.get("format") == kind.format
            what = "was made by an older version" if is_old else f"is a safetensors file, but no {kind.name}"
            raise FewSpikesError(f"{shown(path)} {what}: {kind.again}")
        return kind.opened(parsed(metadata[_ENTRY]), path, tensors), tensors
    except FewSpikesError:
        raise
    except (safetensors.SafetensorError, OSError, *TRIPS) as error:
        raise FewSpikesError(f"{shown(path)} is no complete {kind.name} ({reason_of(error)}); {kind.again}") from None
