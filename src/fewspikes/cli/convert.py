"""`fewspikes convert`: a model by name, a saved spiking network out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.cli import options
from fewspikes.conversion.allocation import Budget
from fewspikes.conversion.choice import Choice
from fewspikes.conversion.conversion import Conversion
from fewspikes.conversion.conversion import convert as convert_model
from fewspikes.conversion.pareto import pareto as measure_frontier
from fewspikes.conversion.pareto import table
from fewspikes.images import data_folder, loader, open_images
from fewspikes.models import LoadedModel, load_model
from fewspikes.network.file import save

EXAMPLE = "Example: fewspikes convert timm:resnet18 --data imagenet -K 8 -o resnet18.fs"
_CALIBRATION_IMAGES = 512
_DISTILLING_IMAGES = 8192  # learning needs more


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write, by custom NAME.fs.")] = None,
    steps: Annotated[
        int | None, typer.Option("-K", help="Time steps, 1 to 24. Default: 8 with --data; the paper's without.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="One range for all uncapped ReLUs, instead of calibrating.")
    ] = None,
    rounding: Annotated[
        str | None, typer.Option(help="nearest (default with --data or -K) or down (the paper's).")
    ] = None,
    spike_weight: Annotated[
        float,
        typer.Option(
            help="Price of a spike per neuron, in the log of the output's error: 0 fits best, 0.3 saves spikes."
        ),
    ] = 0.0,
    effort: Annotated[str, typer.Option(help="Effort of each site's fit: quick, normal or long.")] = "normal",
    offset: Annotated[bool, typer.Option(help="Let a code have an offset, a bias of what follows.")] = True,
    repair: Annotated[bool, typer.Option(help="Shift and scale channels where that helps.")] = True,
    repair_images: Annotated[int, typer.Option(min=2, help="Images that repairs may use.")] = 512,
    max_drop: Annotated[
        float | None, typer.Option(help="In place of -K: points of accuracy (or agreement) that may be lost.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="In place of -K: time steps to the answer.")] = None,
    max_spikes: Annotated[float | None, typer.Option(help="In place of -K: mean spikes per neuron.")] = None,
    pareto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure the frontier of steps, spikes and accuracy, and write it as JSON."),
    ] = None,
    distil: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Learn the code against the ANN's own outputs for so long."),
    ] = None,
    max_pool: Annotated[str, typer.Option(help="digital, or average (changes the network).")] = "digital",
    weights: options.Weights = None,
    random_weights: options.RandomWeights = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images to calibrate on; labels are not used. Without: no calibration."),
    ] = None,
    split: options.Split = None,
    limit: options.Limit = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    workers: options.Workers = 0,
    skip_damaged: options.SkipDamaged = False,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """A trained network in, a spiking network out.

    It is calibrated on images if --data is given, and set as in the paper if neither --data nor -K is.
    """
    single = (steps, alpha, rounding, max_drop, max_steps, max_spikes, distil, output)
    if pareto is not None and any(given is not None for given in single):
        raise FewSpikesError(
            "--pareto measures many networks and keeps none: leave out -o, -K, --alpha, --rounding, --max-* and "
            "--distil"
        )
    if output is not None and not output.parent.is_dir():
        raise FewSpikesError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    _check_data(
        data,
        {"--max-drop": max_drop, "--max-steps": max_steps, "--max-spikes": max_spikes}
        | {"--distil": distil, "--pareto": pareto},
        {"--split": split, "--limit": limit},
    )
    place = find_device(device)
    loaded = load_model(model, None if weights is None else str(weights), random_weights)
    known = options.preprocessing(loaded.preprocessing, mean, std, size)
    if data is not None:
        options.required(known, model)
    shape = options.image_size(known, size, model)
    images = None
    limit = limit or (_CALIBRATION_IMAGES if distil is None else _DISTILLING_IMAGES)
    if data is not None:
        found = open_images(
            data_folder(data), split or "train", options.required(known, model), None, limit=limit, seed=seed
        )
        images = loader(found, batch_size, workers, skip_damaged)
    if pareto is not None:
        repairs = repair_images if repair else 0
        choice = Choice(offset=offset, spike_weight=spike_weight, effort=effort, seed=seed)
        _frontier(loaded, shape, place, images, max_pool, pareto, choice, repairs, as_json)
        return
    snn = convert_model(
        loaded.model.to(place),
        torch.zeros(1, *shape, device=place),
        calibration=images,
        K=steps,
        alpha=alpha,
        rounding=rounding,
        max_pool=max_pool,
        offset=offset,
        spike_weight=spike_weight,
        effort=effort,
        repair=repair,
        repair_images=repair_images,
        max_drop=max_drop,
        max_steps=max_steps,
        max_spikes=max_spikes,
        distil=distil,
        seed=seed,
    )
    if output is not None:
        save(snn, output, None if known is None else known.to_json())
    if as_json:
        written = None if output is None else str(output)
        typer.echo(json.dumps({"model": loaded.name, "output": written, **snn.report.to_json()}))
        return
    typer.echo(f"{loaded.name}: {snn.report}")
    typer.echo(f"written to {output}" if output is not None else "nothing written; give -o FILE to keep the network")


def _check_data(data: Path | None, needing: dict[str, Any], about: dict[str, Any]) -> None:
    """Options that make no sense without images: an error where they ask for work, a warning where not."""
    if data is not None:
        return
    asked = next((name for name, value in needing.items() if value is not None), None)
    if asked is not None:
        raise FewSpikesError(f"{asked} works on images; give --data DIR")
    for name in (name for name, value in about.items() if value is not None):
        warn(f"{name} has no effect without --data")


def _frontier(
    loaded: LoadedModel,
    shape: tuple[int, int, int],
    place: torch.device,
    images: Any,
    max_pool: str,
    path: Path,
    choice: Choice,
    repairs: int,
    as_json: bool,
) -> None:
    """Measure uniform K and mixed K beside each, print the table and write the points."""
    with torch.no_grad():
        example = torch.zeros(1, *shape, device=place)
        work = Conversion(
            loaded.model.to(place), example, images, choice, max_pool, repairs, budget=Budget(max_drop=0.0)
        )
        points = measure_frontier(*work.given(), path=path, settings={**asdict(choice), "repairs": repairs})
    if as_json:
        typer.echo(json.dumps({"model": loaded.name, "output": str(path), "points": [p.to_json() for p in points]}))
        return
    typer.echo(f"{loaded.name}\n{table(points)}\nwritten to {path}")
