"""`fewspikes convert`: a model by name, a saved spiking network out."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.wording import counted
from fewspikes.cli import options, sentences
from fewspikes.cli.pictures import check_takes_pictures
from fewspikes.conversion.conversion import convert as convert_model
from fewspikes.conversion.pareto import frontier as measure_frontier
from fewspikes.conversion.settings import Codes
from fewspikes.graph.nested import tensors_of
from fewspikes.images import data_folder, loader, open_images
from fewspikes.models import load_model
from fewspikes.network.file import save
from fewspikes.network.report import ConversionReport

EXAMPLE = "Example: fewspikes convert timm:resnet18 --data imagenet -K 8 -o resnet18.fs"
_CALIBRATION_IMAGES = 512
_DISTILLING_IMAGES = 8192  # learning needs more


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write, usually NAME.fs.")] = None,
    steps: Annotated[
        int | None,
        typer.Option("-K", help="Time steps, 1 to 24. Default: 8 with --data or --text; the paper's without."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="One range for all uncapped ReLUs, instead of calibrating.")
    ] = None,
    rounding: Annotated[
        str | None, typer.Option(help="nearest (default with --data, --text or -K) or down (the paper's).")
    ] = None,
    spike_price: Annotated[
        float,
        typer.Option(help="What a spike per neuron is worth, as a share of the output's variance: 0.01 saves spikes."),
    ] = 0.0,
    effort: Annotated[str, typer.Option(help="Effort of each site's fit: quick, normal or long.")] = "normal",
    offset: Annotated[bool, typer.Option(help="Let a code have an offset, a bias of what follows.")] = True,
    repair: Annotated[bool, typer.Option(help="Shift and scale channels where that helps.")] = True,
    max_drop: Annotated[
        float | None, typer.Option(help="In place of -K: points of accuracy (or agreement) that may be lost.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="In place of -K: time steps to the answer.")] = None,
    max_spikes: Annotated[float | None, typer.Option(help="In place of -K: mean spikes per neuron.")] = None,
    frontier: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure the frontier of steps, spikes and accuracy, and write it as JSON."),
    ] = None,
    distil: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Learn the code against the ANN's own outputs for so long."),
    ] = None,
    circuits: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD|KIND=VALUE",
            help="gated, shifted or neurons: everything spikes, products too; or by kind: product=gated (shifted, "
            "neurons, digital), max=neurons (average changes the network, digital), input=spikes (analog), "
            "linear=neurons (relay, collapsed); or by modules: 'stem.*=digital'. May be repeated.",
        ),
    ] = None,
    weights: options.Weights = None,
    random_weights: options.RandomWeights = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images to calibrate on; only --max-drop and --frontier use their labels. Without: no "
            "calibration."
        ),
    ] = None,
    text: sentences.Text = None,
    labels: sentences.Labels = None,
    length: sentences.Length = None,
    tokenizer: sentences.Tokenizer = None,
    split: options.Split = None,
    limit: options.Limit = None,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    workers: options.Workers = 0,
    skip_damaged: options.SkipDamaged = False,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    shape: options.Shape = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """A trained network in, a spiking network out.

    It is calibrated on images or sentences if --data or --text is given, and set as in the paper if neither these nor
    -K are.
    """
    single = (steps, alpha, rounding, max_drop, max_steps, max_spikes, distil, output)
    if frontier is not None and any(given is not None for given in single):
        raise FewSpikesError(
            "--frontier measures many networks and keeps none: leave out -o, -K, --alpha, --rounding, --max-* and "
            "--distil"
        )
    if output is not None and not output.parent.is_dir():
        raise FewSpikesError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    given_limit, limit = limit, limit or (_CALIBRATION_IMAGES if distil is None else _DISTILLING_IMAGES)
    pictures = {"--data": data, "--split": split, "--mean": mean, "--std": std, "--size": size, "--shape": shape}
    words = sentences.asked(text, labels, limit, seed, batch_size, pictures)
    _check_data(
        data if text is None else text,
        {"--max-drop": max_drop, "--max-steps": max_steps, "--max-spikes": max_spikes}
        | {"--distil": distil, "--frontier": frontier},
        {"--split": split, "--limit": given_limit, "--length": length, "--tokenizer": tokenizer},
    )
    if data is not None and shape is not None:
        raise FewSpikesError("--shape is for inputs that are no pictures, and --data holds pictures; give --size")
    place = find_device(device)
    loaded = load_model(model, None if weights is None else str(weights), random_weights)
    known = options.preprocessing(loaded.preprocessing, mean, std, size)
    if data is not None:
        options.required(known, model)
    kinds = _kinds(circuits)
    network = loaded.model.to(place)
    example: Any
    images: Any = None
    carried = None if known is None or shape is not None else known.to_json()
    read = None
    if words is not None:
        read = words.for_model(loaded, model, tokenizer, length)
        example, images, carried = read.example(place), read.batches, read.tokens.to_json()
    else:
        example = options.example(loaded, known, size, shape).to(place)
    if data is not None:
        classes = _classes(network, example) if max_drop is not None or frontier is not None else None
        found = open_images(
            data_folder(data), split or "train", options.required(known, model), classes, limit=limit, seed=seed
        )
        images = loader(found, batch_size, workers, skip_damaged)
    codes = Codes(steps, alpha, rounding, offset, spike_price, effort, None if repair else False)
    if frontier is not None:
        points = measure_frontier(network, example, images, codes=codes, circuits=kinds, seed=seed, file=frontier)
        content = {"model": loaded.name, "output": str(frontier), "points": [p.to_json() for p in points]}
        typer.echo(json.dumps(content) if as_json else f"{loaded.name}\n{points}\nwritten to {frontier}")
        return
    snn = convert_model(
        network,
        example,
        images,
        codes=codes,
        circuits=kinds,
        max_drop=max_drop,
        max_steps=max_steps,
        max_spikes=max_spikes,
        distil=distil,
        seed=seed,
    )
    if known is None and shape is None and words is None:
        check_takes_pictures(snn.graph, example, loaded.name)
    if snn.report.calibration_images == 1:
        item = "image" if read is None else "sentence"
        warn(f"calibrated on 1 {item} alone, so all is fitted to that one; give some dozens of {item}s")
    if output is not None:
        save(snn, output, carried)
    _say(loaded.name, snn.report, output, read, as_json)


def _say(name: str, report: ConversionReport, output: Path | None, read: sentences.Read | None, as_json: bool) -> None:
    """Print what was made of the model `name`."""
    if as_json:
        length = {} if read is None else {"tokens": read.tokens.length}
        typer.echo(json.dumps({"model": name, "output": output and str(output), **length, **report.to_json()}))
        return
    typer.echo(f"{name}: {report.text('image' if read is None else 'sentence')}")
    if read is not None:
        typer.echo(f"each sentence has {counted(read.tokens.length, 'token')}, padding included")
    typer.echo(f"written to {output}" if output is not None else "nothing written; give -o FILE to keep the network")


def _check_data(data: Path | None, needing: dict[str, Any], about: dict[str, Any]) -> None:
    """Options that make no sense without images: an error where they ask for work, a warning where not."""
    if data is not None:
        return
    asked = next((name for name, value in needing.items() if value is not None), None)
    if asked is not None:
        raise FewSpikesError(f"{asked} works on images or sentences; give --data DIR or --text FILE")
    for name in (name for name, value in about.items() if value is not None):
        warn(f"{name} has no effect without --data or --text")


def _kinds(given: list[str] | None) -> str | dict[str, str]:
    """What becomes of each kind of circuit, from one word or from KIND=VALUE."""
    if given and len(given) == 1 and "=" not in given[0]:
        return given[0]
    pairs = [text.partition("=") for text in given or []]
    for kind, sign, value in pairs:
        if not (kind and sign and value):
            raise FewSpikesError(
                f"--circuits takes one word, or KIND=VALUE such as max=neurons; got {kind}{sign}{value}"
            )
    return {kind: value for kind, _, value in pairs}


def _classes(model: nn.Module, example: torch.Tensor) -> int | None:
    """How many classes the model tells apart, to hold labels against."""
    with torch.inference_mode():
        found = tensors_of(model(example.clone()))  # one tensor may stand in a tuple or a dict
    return found[0].shape[1] if len(found) == 1 and found[0].ndim == 2 else None
