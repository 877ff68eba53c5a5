"""Flags that several commands share, and what they mean."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fewspikes.base.errors import FewSpikesError
from fewspikes.images import Preprocessing

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
Limit = Annotated[int | None, typer.Option(min=1, help="A random subset of so many images, drawn with --seed.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a batch.")]
Seed = Annotated[int, typer.Option(help="Of the random subset.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images; 0 reads them in this one.")]
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
Size = Annotated[str | None, typer.Option(help="Size of the input: N or HEIGHT,WIDTH.")]
Weights = Annotated[Path | None, typer.Option(help="The model's weights, as .safetensors.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Untrained weights: for counting neurons and steps only.")
]
MODEL_HELP = (
    "timm:NAME, torchvision:NAME, fewspikes:NAME or file.py:function, a function that returns the trained module."
)


def preprocessing(
    known: Preprocessing | None, mean: str | None, std: str | None, size: str | None
) -> Preprocessing | None:
    """The model's own preprocessing, with what the flags say in its place; None if neither is complete.

    A `size` of another value than the model's own drops its resize in proportion: the shorter side scales with it.

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
        return Preprocessing(size=pixels, mean=means, std=stds, resize=min(pixels))
    if means is not None and stds is not None:
        known = replace(known, mean=means, std=stds)
    if pixels is not None and pixels != known.size:
        resize = (
            known.resize if not isinstance(known.resize, int) else round(known.resize * min(pixels) / min(known.size))
        )
        known = replace(known, size=pixels, resize=pixels if isinstance(resize, tuple) else resize)
    return known


def required(found: Preprocessing | None, what: str) -> Preprocessing:
    """`found`, or an error that says how to give it."""
    if found is None:
        raise FewSpikesError(f"{what} does not say how images become inputs; give --mean, --std and --size")
    return found


def image_size(found: Preprocessing | None, size: str | None, what: str) -> tuple[int, int, int]:
    """Channels, height and width of the input."""
    if found is not None:
        return (len(found.mean), *found.size)
    if size is None:
        raise FewSpikesError(
            f"{what} does not say the size of its input; give --size N (and --mean, --std with --data)"
        )
    return (3, *_size(size))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise FewSpikesError(f"{text!r} is not a number or numbers with commas between") from None


def _size(text: str) -> tuple[int, int]:
    parts = _numbers(text)
    if len(parts) not in (1, 2) or any(part != int(part) or part < 1 for part in parts):
        raise FewSpikesError(f"--size must be N or HEIGHT,WIDTH; got {text!r}")
    return int(parts[0]), int(parts[-1])
