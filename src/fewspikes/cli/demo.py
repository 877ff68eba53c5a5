"""`fewspikes demo`: an ImageNet network on photographs, as it was trained and as two spiking networks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from torch import Tensor

from fewspikes.cli import options
from fewspikes.conversion.conversion import convert
from fewspikes.images import read_image
from fewspikes.measure.counting import Counts, count
from fewspikes.models import (
    LITE0_PREPROCESSING,
    efficientnet_lite0,
    imagenet_class_names,
    lite0_calibration,
    photographs,
)
from fewspikes.network.spiking import SpikingNetwork

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLE = "Example: fewspikes demo --image cat.jpg"
_STEPS = 8


@dataclass(frozen=True)
class _Column:
    """One network on all pictures."""

    title: str
    probabilities: Tensor  # [pictures, classes]
    network: SpikingNetwork | None = None
    counts: Counts | None = None

    def best(self, picture: int) -> tuple[int, float]:
        """The top class and its probability."""
        probability, number = self.probabilities[picture].max(0)
        return int(number), float(probability)


def demo(
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="A picture of yours; may be given again.")
    ] = None,
    steps: Annotated[int, typer.Option("-K", min=1, max=24, help="Time steps of the calibrated conversion.")] = _STEPS,
    as_json: options.Json = False,
) -> None:
    """Photographs, by a network and by its spiking versions."""
    pictures = photographs() | {str(path): read_image(path) for path in image or ()}
    columns = _run(pictures, steps)
    names = imagenet_class_names()
    typer.echo(
        json.dumps(_content(list(pictures), columns, names)) if as_json else _text(list(pictures), columns, names)
    )


def _run(pictures: dict[str, "Image"], steps: int) -> list[_Column]:
    transform = LITE0_PREPROCESSING.transform()
    x = torch.stack([transform(picture) for picture in pictures.values()])
    model = efficientnet_lite0()
    with torch.inference_mode():
        columns = [_Column("ANN", model(x).softmax(1))]
        networks = {
            f"calibrated, K={steps}": convert(model, x, calibration=lite0_calibration(), K=steps),
            "paper's setting, K=10": convert(model, x),
        }
        for title, snn in networks.items():
            with count(snn) as counts:
                columns.append(_Column(title, snn(x).softmax(1), snn, counts))
    return columns


def _content(pictures: list[str], columns: list[_Column], names: list[str]) -> dict[str, Any]:
    rows = []
    for i, picture in enumerate(pictures):
        tops = {column.title: column.best(i) for column in columns}
        named = {title: {"class": names[n], "index": n, "probability": share} for title, (n, share) in tops.items()}
        rows.append({"picture": picture, "classes": named})
    return {"pictures": rows, "networks": [_cost(column) for column in columns if column.network is not None]}


def _cost(column: _Column) -> dict[str, Any]:
    assert column.network is not None
    assert column.counts is not None
    report = column.network.report
    return {
        "network": column.title,
        "neurons": report.neurons,
        "layers": report.layers,
        "spikes_per_neuron": column.counts.per_neuron,
        "spikes_per_image": column.counts.per_image,
        "latency_steps": report.latency_steps,
        "interval_steps": report.interval_steps,
    }


def _text(pictures: list[str], columns: list[_Column], names: list[str]) -> str:
    table = [["", *(column.title for column in columns)]]
    for i, picture in enumerate(pictures):
        cells = [column.best(i) for column in columns]
        table.append([Path(picture).name, *(f"{names[number]} {100 * share:.1f}%" for number, share in cells)])
    costs = [_cost(column) for column in columns if column.network is not None]
    table.append([""] * len(table[0]))
    for title, form in (
        ("neurons", "{neurons:,}"),
        ("spikes per neuron", "{spikes_per_neuron:.2f}"),
        ("steps to the answer", "{latency_steps}"),
        ("steps between images", "{interval_steps}"),
    ):
        table.append([title, "", *(form.format(**cost) for cost in costs)])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
