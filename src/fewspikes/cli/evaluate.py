"""`fewspikes evaluate`: a saved network on labelled images, beside its ANN."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError
from fewspikes.cli import options, sentences
from fewspikes.images import data_folder, loader, open_images
from fewspikes.measure.embedding import evaluate_embeddings
from fewspikes.measure.evaluation import evaluate as evaluate_network
from fewspikes.measure.measurement import classes_of
from fewspikes.measure.outputs import floats
from fewspikes.models import load_model
from fewspikes.network.file import load
from fewspikes.network.spiking import SpikingNetwork

EXAMPLE = "Example: fewspikes evaluate resnet18.fs --data imagenet --limit 1000"


def evaluate(
    network: Annotated[Path, typer.Argument(metavar="NETWORK", help="A file that `fewspikes convert -o` wrote.")],
    data: options.Data = None,
    text: sentences.Text = None,
    labels: sentences.Labels = None,
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
    """A spiking network beside its ANN, on labelled images or on sentences.

    Measures accuracy, agreement, spikes, time steps and operations; of a network that gives a sentence a vector, how
    alike the vectors are, and how both rank all pairs of sentences.
    """
    place = find_device(device)
    pictures = {"--data": data, "--split": split, "--mean": mean, "--std": std, "--size": size}
    words = sentences.asked(text, labels, limit, seed, batch_size, pictures)
    snn = load(network).to(place)
    if words is not None:
        read = words.for_network(snn, str(network))
        ann = _reference(reference, weights, place)
        run = evaluate_embeddings if labels is None and _gives_vectors(snn, read) else evaluate_network
        found = run(snn, read.batches, ann, name=network.stem)
        typer.echo(json.dumps(found.to_json()) if as_json else found.text("sentence"))
        return
    if sentences.takes_sentences(snn):
        raise FewSpikesError(f"{network} takes sentences; give --text FILE")
    known = options.of_network(snn, str(network), mean, std, size)
    images = open_images(data_folder(data), split or "evaluation", known, classes_of(snn), limit=limit, seed=seed)
    ann = _reference(reference, weights, place)
    batches = loader(images, batch_size, workers, skip_damaged)
    report = evaluate_network(snn, batches, ann, name=network.stem)
    typer.echo(json.dumps(report.to_json() | {"left_out": batches.left_out}) if as_json else str(report))


def _reference(spec: str | None, weights: Path | None, place: torch.device) -> nn.Module | None:
    return None if spec is None else load_model(spec, None if weights is None else str(weights)).model.to(place)


def _gives_vectors(snn: SpikingNetwork, read: sentences.Read) -> bool:
    """Whether its output is one vector for each sentence, and not called logits."""
    with torch.inference_mode():
        output = snn(read.example(snn.device))
    rows = [value for value in floats(output) if value.ndim == 2]
    return len(rows) == 1 and not hasattr(output, "logits") and not (isinstance(output, dict) and "logits" in output)
