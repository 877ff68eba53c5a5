"""`fewspikes evaluate`: a saved network on labelled images, beside its ANN."""

import json
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError
from fewspikes.cli import options
from fewspikes.images import Preprocessing, data_folder, loader, open_images
from fewspikes.measure.evaluation import evaluate as evaluate_network
from fewspikes.measure.measurement import classes_of
from fewspikes.models import load_model
from fewspikes.network.file import load
from fewspikes.network.spiking import SpikingNetwork

EXAMPLE = "Example: fewspikes evaluate resnet18.fs --data imagenet --limit 1000"


def evaluate(
    network: Annotated[Path, typer.Argument(metavar="NETWORK", help="A file that `fewspikes convert -o` wrote.")],
    data: options.Data = None,
    split: options.Split = None,
    limit: options.Limit = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    workers: options.Workers = 0,
    skip_damaged: options.SkipDamaged = False,
    reference: Annotated[
        str | None, typer.Option(metavar="MODEL", help=f"The ANN: {options.MODEL_HELP} Default: NETWORK's own ANN.")
    ] = None,
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """A spiking network beside its ANN, on labelled images.

    Measures accuracy, agreement, spikes, time steps and operations.
    """
    place = find_device(device)
    snn = load(network).to(place)
    carried = None if snn.preprocessing is None else Preprocessing.from_json(snn.preprocessing)
    known = options.preprocessing(carried, mean, std, size or _size(network, snn, carried))
    known = options.required(known, str(network), "give --mean and --std")
    images = open_images(data_folder(data), split or "evaluation", known, classes_of(snn), limit=limit, seed=seed)
    ann: nn.Module | None = None
    if reference is not None:
        ann = load_model(reference, None if weights is None else str(weights)).model.to(place)
    batches = loader(images, batch_size, workers, skip_damaged)
    report = evaluate_network(snn, batches, ann, name=network.stem)
    typer.echo(json.dumps(report.to_json() | {"left_out": batches.left_out}) if as_json else str(report))


def _size(network: Path, snn: SpikingNetwork, carried: Preprocessing | None) -> str | None:
    """The size of its pictures, as --size has it, where only its input tells; None where it is known already."""
    shape = snn.inputs[0].shape
    if carried is not None:
        return None
    if len(snn.inputs) > 1 or len(shape) != 3 or shape[0] not in (1, 3):
        shapes = " and ".join(f"{spec.name} {list(spec.shape)}" for spec in snn.inputs)
        raise FewSpikesError(
            f"{network} takes no pictures but {shapes}, and this command reads pictures; call fewspikes.evaluate in "
            "Python with batches of your own"
        )
    return f"{shape[1]},{shape[2]}"
