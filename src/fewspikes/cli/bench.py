"""`fewspikes bench`: how fast neurons and networks run here, and how much memory they take."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_json
from fewspikes.base.progress import track
from fewspikes.bench import activation_rows, conditions, fit_rows, growth_rows, memory_row, network_row, spiking
from fewspikes.cli import options
from fewspikes.cli.pictures import check_takes_pictures
from fewspikes.graph.capture import captured_model
from fewspikes.models import load_model

EXAMPLE = "Example: fewspikes bench torchvision:efficientnet_b0 --random-weights --batch-size 16 -o bench.json"


def bench(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help=f"{options.MODEL_HELP} Without: single neurons and fits."),
    ] = None,
    steps: Annotated[int | None, typer.Option("-K", help="Time steps, 1 to 24. Default: the paper's setting.")] = None,
    batch_size: options.BatchSize = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of measuring for each row.")] = 10.0,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also how time grows with K, the batch, and the number of batches.")
    ] = False,
    memory: Annotated[bool, typer.Option(help="Also peak memory, each network in a process of its own (CPU).")] = True,
    weights: options.Weights = None,
    random_weights: options.RandomWeights = False,
    size: options.Size = None,
    shape: options.Shape = None,
    device: options.Device = "cpu",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The JSON file to write.")] = None,
    as_json: options.Json = False,
) -> None:
    """Speed and memory on this machine, spiking beside not spiking, in one run.

    Random images; medians of runs in turn.
    """
    if output is not None and not output.parent.is_dir():
        raise FewSpikesError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    place = find_device(device)
    if model is None:
        found = {
            "activation": list(track(activation_rows(device=str(place), seconds=seconds), "neurons", None)),
            "fits": list(track(fit_rows(), "fits", None)),
        }
    else:
        given = (model, None if weights is None else str(weights), random_weights)
        found = _network(given, steps, batch_size, seconds, growth, memory, size, shape, place)
    result = {"name": "bench", "model": model, **found, "conditions": conditions()}
    if output is not None:
        write_json(output, result)
    typer.echo(json.dumps(result) if as_json else _shown(result))


def _network(
    given: tuple[str, str | None, bool],
    K: int | None,
    batch: int,
    seconds: float,
    growth: bool,
    memory: bool,
    size: str | None,
    shape: str | None,
    place: torch.device,
) -> dict[str, Any]:
    torch.manual_seed(0)
    loaded = load_model(*given)
    known = options.preprocessing(loaded.preprocessing, None, None, size)
    images = torch.randn(batch, *options.example(loaded, known, size, shape).shape[1:]).to(place)
    network = loaded.model.to(place)
    if known is None and shape is None:
        check_takes_pictures(captured_model(network, images[:1]).graph, images[:1], loaded.name)
    wanted: dict[str, Any] = {} if K is None else {"K": K}
    found: dict[str, Any] = {"networks": [network_row(network, images, seconds, **wanted)]}
    if growth:
        found["growth"] = list(track(growth_rows(network, images, seconds=seconds), "growth", None))
    if memory and place.type == "cpu":
        found["memory"] = [memory_row(*given, spiking(network, images, wanted), images)]
    return found


def _shown(result: dict[str, Any]) -> str:
    lines: list[str] = []
    for name in ("activation", "fits", "networks", "growth", "memory"):
        if name in result:
            lines += [name, *(f"  {_row(row)}" for row in result[name])]
    signed = result["conditions"]
    machine, versions = signed["machine"], signed["versions"]
    lines.append(
        f"{signed['date']}, {machine['gpu'] or machine['processor']}, {machine['threads']} threads, "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}, commit {signed['commit']}"
    )
    return "\n".join(lines)


def _row(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        if all(isinstance(inner, int) for inner in value.values()):  # K by site
            return f"{min(value.values())} to {max(value.values())}"
        return "(" + ", ".join(f"{name} {_value(inner)}" for name, inner in value.items()) + ")"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "x".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
