"""`fewspikes simulate`: a saved network spike by spike on some pictures, told step by step."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.figures import check_picture
from fewspikes.base.wording import counted
from fewspikes.cli import options, sentences
from fewspikes.images import Preprocessing, data_folder, open_images, read_image
from fewspikes.measure.measurement import classes_of
from fewspikes.measure.outputs import floats
from fewspikes.network.file import load
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.simulation.courses import Course, course
from fewspikes.simulation.drawing import draw_course, draw_raster
from fewspikes.simulation.simulation import ENGINES, Pipeline
from fewspikes.simulation.simulation import simulate as run
from fewspikes.simulation.trace import Recording, Trace

EXAMPLE = "Example: fewspikes simulate resnet20.fs --image cat.jpg --raster cat.png"
_MOST_IMAGES, _MOST_LAYERS = 10, 4  # whose answers are listed; that are named in one line


def simulate(
    network: Annotated[Path, typer.Argument(metavar="NETWORK", help="A file that `fewspikes convert -o` wrote.")],
    image: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A photograph; may be repeated.")] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="steps: all images at once, with the answer so far; pipeline: one after another, all layers at work "
            "at once; events: spike by spike, every synaptic operation counted."
        ),
    ] = "steps",
    membranes: Annotated[
        int | None, typer.Option(metavar="1|2", help="Of the pipeline, for each neuron; with 2 images follow sooner.")
    ] = None,
    interval: Annotated[
        int | None, typer.Option(metavar="STEPS", help="Of the pipeline, between two images. Default: the shortest.")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A layer to show and to record; may be repeated. Default: all."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Record every spike as an address event; a new folder.")
    ] = None,
    raster: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw which layers fire when, or of one --site which neurons: a .png or .svg (needs matplotlib).",
        ),
    ] = None,
    neuron: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the neuron of --site that fires most on the first image: .png or .svg."
        ),
    ] = None,
    data: options.Data = None,
    split: options.Split = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    as_json: options.Json = False,
) -> None:
    """A spiking network spike by spike: which layers are at work, what they fire, and when the answer is there.

    Takes photographs (--image), or some images of a data set (--data with --limit).
    """
    if engine not in ENGINES:
        raise FewSpikesError(f"--engine must be {', '.join(ENGINES[:-1])} or {ENGINES[-1]}; got {said(engine)}")
    for picture in (raster, neuron):
        if picture is not None:
            check_picture(picture)
    if raster is not None and neuron is not None and raster.resolve() == neuron.resolve():
        raise FewSpikesError(f"--raster and --neuron would both be {raster}; give two files")
    if neuron is not None and not site:
        raise FewSpikesError("--neuron needs a layer; give --site NAME")
    if (membranes is not None or interval is not None) and engine != "pipeline":
        raise FewSpikesError("--membranes and --interval are settings of --engine pipeline; give it, or leave them out")
    chosen = Pipeline(membranes or 1, interval) if engine == "pipeline" else engine
    alone = tuple(site) if site and raster is not None and len(set(site)) == 1 else ()  # its neurons are drawn
    recording = Recording(alone) if record is None else Recording(tuple(site) if site else None, folder=record)
    snn = load(network)
    if sentences.takes_sentences(snn):
        raise FewSpikesError(f"{network} takes sentences, and this command reads pictures; call fewspikes.simulate")
    _check_sites(snn, site or ())
    known = options.of_network(snn, str(network), mean, std, size)
    if bool(image) == (limit is not None):
        raise FewSpikesError("give either --image FILE, once or more, or --limit N for N images of --data")
    names, x = _read(image, known) if image else _drawn(snn, known, data, split, limit, seed)
    x = x.to(snn.dtype)
    trace = run(snn, x, chosen, recording)
    shown = tuple(dict.fromkeys(site)) if site else tuple(trace.times)
    found = None if neuron is None or not site else course(snn, x[:1], site[0])
    if raster is not None:
        draw_raster(trace, raster, shown)
    if found is not None and neuron is not None:
        draw_course(found, neuron)
    if as_json:
        typer.echo(json.dumps(_as_json(snn, trace, names, shown, found)))
        return
    for line in _lines(snn, trace, names, shown):
        typer.echo(line)
    for what, path in (("recorded", record), ("raster", raster), (f"neuron of {shown[0]}", neuron)):
        if path is not None:
            typer.echo(f"{what}: {path}")


def _check_sites(snn: SpikingNetwork, names: Sequence[str]) -> None:
    for name in names:
        if name not in snn.neurons:
            raise FewSpikesError(f"there is no site {said(name)}; --site takes one of {', '.join(snn.neurons)}")


def _read(files: Sequence[Path], known: Preprocessing) -> tuple[list[str], Tensor]:
    """The photographs as a batch, with their names."""
    transform, found = known.transform(), []
    for file in files:
        photo = read_image(file)
        try:
            found.append(transform(photo))
        except FewSpikesError as error:
            raise FewSpikesError(f"{file}: {error}") from None
    return [str(file) for file in files], torch.stack(found)


def _drawn(
    snn: SpikingNetwork, known: Preprocessing, data: Path | None, split: str | None, limit: int | None, seed: int
) -> tuple[list[str], Tensor]:
    """Images of a data set as a batch; their names tell their classes."""
    images = open_images(data_folder(data), split or "evaluation", known, classes_of(snn), limit=limit, seed=seed)
    pairs = [images[n] for n in range(len(images))]
    return [f"image {n} of class {label}" for n, (_, label) in enumerate(pairs)], torch.stack([x for x, _ in pairs])


def _classes(output: Any, images: int) -> list[int] | None:
    """The class of each image; None where the output names none."""
    values = floats(output)
    if len(values) != 1 or values[0].ndim != 2 or len(values[0]) != images or values[0].shape[1] < 2:
        return None
    numbers: list[int] = values[0].argmax(1).tolist()
    return numbers


def _running(trace: Trace) -> list[tuple[int, list[int] | None]]:
    """The classes of all images after each of the last steps."""
    if trace.running is None:
        return []
    return [(n, _classes(x, trace.counts.images)) for n, x in zip(trace.running_steps, trace.running, strict=True)]


def _spans(trace: Trace, sites: Sequence[str]) -> Iterator[tuple[int, int, list[str]]]:
    """First and last step in which the same layers are at work, and these."""
    first, before = 1, list[str]()
    for step in range(1, max(trace.times[name][1] for name in sites) + 2):
        now = [name for name in sites if trace.times[name][0] <= step <= trace.times[name][1]]
        if now != before:
            if before:
                yield first, step - 1, before
            first, before = step, now


def _lines(snn: SpikingNetwork, trace: Trace, names: Sequence[str], sites: Sequence[str]) -> Iterator[str]:
    images, counts = trace.counts.images, trace.counts
    total = sum(counts.by_site[name] for name in sites)
    rate = total / images / max(sum(counts.neurons[name] for name in sites), 1)
    layers = counted(len(sites), "layer")
    yield f"{counted(images, 'image')}, engine {trace.engine}: {counted(total, 'spike')} in {layers}"
    yield f"{rate:.2f} spikes per neuron and image"
    if counts.synops is not None:
        yield f"{counts.synops:,} synaptic operations, counted one by one"
    yield ""
    rows = [("steps", "layers at work", "spikes in each step")]
    for first, last, at_work in _spans(trace, sites):
        spikes = sum(trace.per_step[name][first - 1 : last] for name in at_work)
        rows.append((f"{first}-{last}", _listed(at_work), "  ".join(f"{n:,}" for n in torch.as_tensor(spikes))))
    widths = [max(len(row[n]) for row in rows) for n in range(2)]
    yield from (f"{steps:<{widths[0]}}  {at_work:<{widths[1]}}  {spikes}" for steps, at_work, spikes in rows)
    yield ""
    yield from _answer(trace, names)
    if trace.traffic is not None:
        told = trace.traffic
        yield (
            f"latency {told.latency} steps, a new image every {told.interval} steps: "
            f"{told.images_per_1000_steps:.1f} images per 1,000 steps"
        )
        yield f"delay buffers: {told.spike_buffers:,} bits of spikes, {told.value_buffers:,} values"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LAYERS
    return ", ".join(names[:_MOST_LAYERS]) + (f" and {counted(more, 'layer')} more" if more > 0 else "")


def _answer(trace: Trace, names: Sequence[str]) -> Iterator[str]:
    classes = _classes(trace.output, trace.counts.images)
    if classes is None:
        shapes = ", ".join(str(list(value.shape)) for value in floats(trace.output))
        yield f"the answer is there after step {trace.answer}: {shapes}"
        return
    running = [(step, found) for step, found in _running(trace) if found is not None]
    for n, name in enumerate(names[:_MOST_IMAGES]):
        yield f"{name}: class {classes[n]}, after step {trace.answer}"
        if running:
            yield "  after step " + ", ".join(f"{step}: {found[n]}" for step, found in running)
    if len(names) > _MOST_IMAGES:
        yield f"and {len(names) - _MOST_IMAGES:,} images more; --json has all"


def _as_json(
    snn: SpikingNetwork, trace: Trace, names: Sequence[str], sites: Sequence[str], found: Course | None
) -> dict[str, Any]:
    counts = trace.counts
    layers = [
        {
            "site": name,
            "K": snn.neurons[name].code.K,
            "neurons": counts.neurons[name],
            "first_step": trace.times[name][0],
            "last_step": trace.times[name][1],
            "spikes": counts.by_site[name],
            "spikes_per_step": trace.per_step[name][trace.times[name][0] - 1 : trace.times[name][1]].tolist(),
        }
        for name in sites
    ]
    told, pipeline = trace.traffic, dict[str, Any]()
    if told is not None:
        pipeline = {
            "interval_steps": told.interval,
            "images_per_1000_steps": told.images_per_1000_steps,
            "spike_buffer_bits": told.spike_buffers,
            "value_buffers": told.value_buffers,
        }
    return {
        "engine": trace.engine,
        "images": list(names),
        "latency_steps": trace.answer,
        **pipeline,
        "classes": _classes(trace.output, counts.images),
        "running_classes": [{"step": step, "classes": classes} for step, classes in _running(trace)],
        "spikes": sum(counts.by_site[name] for name in sites),
        "synops": counts.synops,
        "layers": layers,
        **({} if found is None else {"neuron": vars(found)}),
    }
