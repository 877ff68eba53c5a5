"""`fewspikes convert`: a model by name, a saved spiking network out."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from fewspikes.cli import options
from fewspikes.convert import convert as convert_model
from fewspikes.data import data_folder, loader, open_images
from fewspikes.errors import FewSpikesError
from fewspikes.models import load_model
from fewspikes.saving import save

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
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """A trained network in, a spiking network out.

    It is calibrated on images if --data is given, and set as in the paper if neither --data nor -K is.
    """
    if output is not None and not output.parent.is_dir():
        raise FewSpikesError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    place = options.device(device)
    loaded = load_model(model, None if weights is None else str(weights), random_weights)
    known = options.preprocessing(loaded.preprocessing, mean, std, size)
    shape = options.image_size(known, size, model)
    images = None
    limit = limit or (_CALIBRATION_IMAGES if distil is None else _DISTILLING_IMAGES)
    if data is not None:
        found = open_images(
            data_folder(data), split or "train", options.required(known, model), None, limit=limit, seed=seed
        )
        images = loader(found, batch_size, workers)
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
        refine=refine,
        repair=repair,
        repair_images=repair_images,
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
