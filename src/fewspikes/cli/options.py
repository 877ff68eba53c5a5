"""Flags that several commands share, and what they mean."""

import re
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from fewspikes.base.checks import MOST_SEED, said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.wording import counted
from fewspikes.cli.pictures import channels, check_colours, numbers_for
from fewspikes.images import Preprocessing
from fewspikes.models.loading import LoadedModel
from fewspikes.network.spiking import SpikingNetwork

_MOST_PIXELS = 4096  # of a side
_MOST_NUMBERS = 1 << 26  # of an input: 256 MiB

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images: class folders (train/, val/, test/ or none), Parquet files in the Hugging Face "
        "layout, or tar shards (WebDataset). Default: the environment variable FEWSPIKES_DATA."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="Split of the data: train, val, test, ... Default: train to convert, test to evaluate."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="A random subset of so many images (sentences), by --seed.")]
BatchSize = Annotated[int, typer.Option(min=1, max=65_536, help="Images (sentences) a batch.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the random subset.")]
Workers = Annotated[int, typer.Option(min=0, max=256, help="Processes that read images; 0 reads them in this one.")]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave damaged images out and name them. Default: stop at the first.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
Mean = Annotated[
    str | None, typer.Option(help="Mean of the pixels, scaled to 0..1: R,G,B, or one number for a grey input.")
]
Std = Annotated[
    str | None, typer.Option(help="Standard deviation of the pixels: R,G,B, or one number for a grey input.")
]
Size = Annotated[str | None, typer.Option(help="Size of the pictures that it takes: N or HEIGHT,WIDTH.")]
Shape = Annotated[
    str | None,
    typer.Option(help="Shape of one input where it is no picture, such as 144 or 16,100: a comma between the axes."),
]
Weights = Annotated[
    Path | None, typer.Option(help="The model's weights: a .safetensors or .pth file, or a folder with one.")
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Untrained weights: for counting neurons and steps only.")
]
MODEL_HELP = (
    "timm:NAME, torchvision:NAME, hf:NAME or hf:FOLDER (transformers), fewspikes:NAME or file.py:function, a function "
    "that returns the trained module."
)


def preprocessing(
    known: Preprocessing | None, mean: str | None, std: str | None, size: str | None
) -> Preprocessing | None:
    """The model's own preprocessing, with what the flags say in its place; None if neither is complete.

    With a `size`, pictures of any size are taken: the shorter side is resized to it, or, where the model has a size and
    a resize of its own, to as much more as there.

    Raises:
        FewSpikesError: numbers that are none, or --mean without --std.
    """
    pixels = None if size is None else _size(size)
    means, stds = (None if text is None else _numbers(text) for text in (mean, std))
    if (means is None) != (stds is None):
        raise FewSpikesError("--mean and --std go together; give both or neither")
    if known is None:
        if means is None or stds is None or pixels is None:
            return None
        return Preprocessing(size=pixels, mean=means, std=stds, resize=max(pixels))
    if means is not None and stds is not None:
        known = replace(known, mean=means, std=stds)
    if pixels is not None and (known.resize is None or pixels != known.size):
        resize: int | tuple[int, int] = pixels
        if not isinstance(known.resize, tuple):
            resize = round((known.resize or max(known.size)) * max(pixels) / max(known.size))
        known = replace(known, size=pixels, resize=resize)
    return known


def required(found: Preprocessing | None, what: str, remedy: str = "give --mean, --std and --size") -> Preprocessing:
    """`found`, or an error that says how to give it."""
    if found is None:
        raise FewSpikesError(f"{what} does not say how images become inputs; {remedy}")
    return found


def of_network(snn: SpikingNetwork, name: str, mean: str | None, std: str | None, size: str | None) -> Preprocessing:
    """The preprocessing that a converted network carries, with what the flags say in its place.

    Args:
        snn: the network.
        name: of its file, for messages.
        mean, std, size: the flags.

    Raises:
        FewSpikesError: it carries none and the flags are not complete, they are of other colours, or it takes no
            pictures.
    """
    carried = None if snn.preprocessing is None else Preprocessing.from_json(snn.preprocessing)
    known = preprocessing(carried, mean, std, size or _size_of(name, snn, carried))
    found, shape = required(known, name, "give --mean and --std"), snn.inputs[0].shape
    if len(shape) == 3 and shape[0] != len(found.mean):
        raise FewSpikesError(
            f"{name} takes pictures of {counted(shape[0], 'channel')}, and --mean and --std have {len(found.mean)}; "
            f"give each {numbers_for(shape[0])}"
        )
    return found


def _size_of(name: str, snn: SpikingNetwork, carried: Preprocessing | None) -> str | None:
    """The size of its pictures, as --size has it, where only its input tells; None where it is known already."""
    shape = snn.inputs[0].shape
    if carried is not None:
        return None
    if len(snn.inputs) > 1 or len(shape) != 3 or shape[0] not in (1, 3):
        shapes = " and ".join(f"{spec.name} {list(spec.shape)}" for spec in snn.inputs)
        raise FewSpikesError(
            f"{name} takes no pictures but {shapes}, and this command reads pictures; call fewspikes.evaluate or "
            "fewspikes.simulate in Python with batches of your own"
        )
    return f"{shape[1]},{shape[2]}"


def example(loaded: LoadedModel, found: Preprocessing | None, size: str | None, shape: str | None) -> torch.Tensor:
    """A batch of one input of zeros, of the shape that the flags or the model's own preprocessing say.

    Raises:
        FewSpikesError: nobody says it, or pictures of other colours than the network takes.
    """
    if shape is not None:
        if size is not None:
            raise FewSpikesError("--size and --shape both say how large an input is; give one of them")
        return torch.zeros(1, *_whole("--shape", shape), dtype=_dtype(loaded.model))
    if found is not None:
        made = torch.zeros(1, len(found.mean), *found.size)
        check_colours(loaded.model, made, loaded.name)
        return made
    if size is None:
        raise FewSpikesError(
            f"{loaded.name} does not say the size of its input; give --size N for pictures (and --mean, --std with "
            "--data), --text FILE for sentences, or --shape N for other inputs"
        )
    pixels = _size(size)
    return torch.zeros(1, channels(loaded.model, *pixels), *pixels)


def _dtype(model: nn.Module) -> torch.dtype:
    """Of its input: whole numbers for the language models of transformers, which say so themselves."""
    return torch.int64 if getattr(model, "main_input_name", "") == "input_ids" else torch.float32


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise FewSpikesError(f"{said(text)} is not a number or numbers with commas between") from None


def _size(text: str) -> tuple[int, int]:
    sides = _whole("--size", text)
    if len(sides) > 2 or max(sides) > _MOST_PIXELS:
        raise FewSpikesError(f"--size must be N or HEIGHT,WIDTH of at most {_MOST_PIXELS:,} pixels; got {said(text)}")
    return sides[0], sides[-1]


def _whole(flag: str, text: str) -> tuple[int, ...]:
    """Whole numbers >= 1 with commas between."""
    parts = text.split(",")
    if not all(re.fullmatch(r" *[0-9]{1,9} *", part) for part in parts) or not all(int(part) for part in parts):
        raise FewSpikesError(f"{flag} must be whole numbers >= 1 with commas between, such as 32; got {said(text)}")
    numbers = tuple(int(part) for part in parts)
    if prod(numbers) > _MOST_NUMBERS:
        raise FewSpikesError(
            f"{flag} {said(text)} makes inputs of {prod(numbers):,} numbers; at most {_MOST_NUMBERS:,} go"
        )
    return numbers
