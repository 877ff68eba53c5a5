"""Pictures of a simulation: who fires when, one neuron at work, and how early the answer is right. Needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.figures import GREY, LEAST, OURS, TARGET, THEIRS, check_picture, drawing, write_picture
from fewspikes.base.wording import counted
from fewspikes.simulation.courses import Course
from fewspikes.simulation.trace import Trace

_TALL, _LINE, _LEAST = 9.0, 0.2, 2.2  # inches
_MOST_NAMES, _LONGEST = 40, 32  # beside the axis, and characters of one
_MOST_STEPS = 1000  # of a pipeline
_FEW, _MANY = 200, 20_000  # neurons whose spikes are strokes; spikes that are pixels in an .svg, too


def draw_raster(trace: Trace, path: Any, sites: Sequence[str] | None = None) -> Path:
    """Who fires when: layers over global steps, or of one layer its neurons, a dot for each spike.

    Layers are coloured by the share of their neurons that fire, where they are at work; a line marks the answer. For
    engine "pipeline" all images in flight are there together, up to 1,000 steps, with a mark for each answer. One layer
    by itself, if its spikes are kept in the trace, shows those of the first image.

    Args:
        trace: of a simulation.
        path: of the picture, .png or .svg.
        sites: the layers to show; None: all.

    Raises:
        FewSpikesError: a site that is not there, another kind of file, or no matplotlib.
    """
    place, names = check_picture(path), tuple(trace.times) if sites is None else tuple(dict.fromkeys(sites))
    unknown = [name for name in names if name not in trace.times]
    if unknown:
        raise FewSpikesError(f"there is no site {said(unknown[0])}; there are {', '.join(trace.times)}")
    if not names:
        raise FewSpikesError("a raster of no layers shows nothing; name some, or leave sites out for all")
    with drawing("a raster") as plt:
        if len(names) == 1 and names[0] in trace.spikes:
            figure = _dots(plt, trace, names[0])
        else:
            figure = _layers(plt, trace, sorted(names, key=trace.times.__getitem__))
        write_picture(figure, place)
    return place


def _layers(plt: Any, trace: Trace, names: Sequence[str]) -> Any:
    density = _density(trace, names)
    first, last = min(trace.times[name][0] for name in names), max(trace.times[name][1] for name in names)
    if trace.interval is not None:
        last += trace.interval * (trace.counts.images - 1)
    steps = min(last - first + 1, _MOST_STEPS)
    figure, ax = plt.subplots(figsize=(8.2, min(_TALL, _LEAST + _LINE * len(names))))
    extent = (first - 0.5, first + steps - 0.5, len(names) - 0.5, -0.5)
    colours = plt.get_cmap("viridis").with_extremes(bad="white")
    shown = ax.imshow(
        density[:, first - 1 : first - 1 + steps].numpy(),
        aspect="auto",
        interpolation="nearest",
        extent=extent,
        cmap=colours,
        vmin=0.0,
    )
    figure.colorbar(shown, ax=ax, pad=0.01).set_label("share that fires", fontsize=8)
    for n, step in enumerate(_answers(trace, first + steps - 1)):
        ends = (0, 1) if trace.interval is None else (1.005, 1.03)  # above the layers of other images
        label = None if n else _answer(trace)
        ax.axvline(step + 0.5, *ends, color=TARGET, linewidth=1.6, clip_on=False, label=label)
    every = -(-len(names) // _MOST_NAMES)
    ax.set_yticks(range(0, len(names), every), [_short(name) for name in names[::every]], fontsize=7)
    cut = f"; steps {first} to {first + steps - 1} of {last}" if first + steps - 1 < last else ""
    ax.set(xlabel=_steps(trace) + cut, ylabel="layer (white: not at work)", xlim=(first - 0.5, first + steps + 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
    if ax.get_legend_handles_labels()[0]:
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right")
    figure.suptitle(_title(trace, names), x=0.01, ha="left", fontsize=9)
    return figure


def _dots(plt: Any, trace: Trace, name: str) -> Any:
    """A layer's neurons over the global steps of the first image."""
    (starts, K), (first, last), count = _firing(trace, name), trace.times[name], trace.counts.neurons[name]
    trains = trace.spikes[name].reshape(len(starts), K, trace.counts.images, -1)[:, :, 0]
    figure, ax = plt.subplots(figsize=(8.2, 4.4))
    apart = torch.Generator().manual_seed(0)
    for start, own in zip(starts, trains, strict=True):
        t, neuron = own.nonzero(as_tuple=True)
        side = torch.rand(len(t), generator=apart) * 0.7 - 0.35 if count > _FEW else 0  # beside one another
        mark = "." if count <= _FEW else ","
        ax.plot(start + 1 + t + side, neuron, mark, color=OURS, rasterized=len(t) > _MANY)
    ax.set(
        xlabel="global step",
        ylabel="neuron (row-major)",
        xlim=(first - 0.5, last + 0.5),
        ylim=(count - 0.5, -0.5),
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    spikes = counted(int(trains.sum()), "spike")
    figure.suptitle(
        f"{_short(name)}, the first image: {spikes} of {counted(count, 'neuron')}", x=0.01, ha="left", fontsize=9
    )
    return figure


def _density(trace: Trace, names: Sequence[str]) -> Tensor:
    """By layer and step, the share of its neurons that fire; NaN where none may."""
    counted = trace.per_step if trace.together is None else trace.together
    rows = []
    for name in names:
        starts, K = _firing(trace, name)
        at_work = torch.zeros(len(counted[name]), dtype=torch.int64)
        images = [trace.counts.images] if trace.together is None else [1] * trace.counts.images
        for n, count in enumerate(images):
            for start in starts:
                begin = n * (trace.interval or 0) + start
                at_work[begin : begin + K] += count
        share = counted[name].double() / (at_work * trace.counts.neurons[name]).double()
        rows.append(torch.where(at_work > 0, share, torch.nan))
    return torch.stack(rows)


def _firing(trace: Trace, name: str) -> tuple[tuple[int, ...], int]:
    """The steps after which a layer fires, and for how many."""
    starts = trace.starts[name]
    return starts, trace.times[name][1] - max(starts)


def _answers(trace: Trace, steps: int) -> list[int]:
    if trace.interval is None:
        return [trace.answer]
    found = (trace.answer + n * trace.interval for n in range(trace.counts.images))
    return [step for step in found if step <= steps]


def _answer(trace: Trace) -> str:
    return f"the answer, after step {trace.answer}" if trace.interval is None else "an answer"


def _steps(trace: Trace) -> str:
    return "global step" if trace.interval is None else f"global step; a new image every {trace.interval} steps"


def _title(trace: Trace, names: Sequence[str]) -> str:
    total = sum(trace.counts.by_site[name] for name in names)
    return f"{counted(trace.counts.images, 'image')}, {counted(total, 'spike')} in {counted(len(names), 'layer')}"


def draw_course(found: Course, path: Any) -> Path:
    """A neuron's T(t), h(t), d(t), and below its potential v(t) against T(t), with its spikes in both.

    Args:
        found: of the neuron.
        path: of the picture, .png or .svg.

    Raises:
        FewSpikesError: another kind of file, or no matplotlib.

    Source: paper, Fig. 2b and Fig. 3.
    """
    place, steps = check_picture(path), range(1, len(found.T) + 1)
    with drawing("the picture of a neuron") as plt:
        figure, (code, course) = plt.subplots(2, 1, figsize=(6.4, 5.2), sharex=True)
        for values, colour, line, label in (
            (found.T, THEIRS, "o-", "T(t)"),
            (found.d, OURS, "o-", "d(t)"),
            (found.h, LEAST, "o--", "h(t)"),  # last and dashed: that of a ReLU is d(t)
        ):
            code.plot(steps, values, line, color=colour, label=label, markersize=3, linewidth=1)
        course.plot(steps, found.T, color=THEIRS, label="threshold T(t)", drawstyle="steps-mid", linewidth=1)
        course.plot(steps, found.v, "o-", color=OURS, label="potential v(t)", drawstyle="steps-mid", markersize=3,
                    linewidth=1)  # fmt: skip
        for ax in (code, course):
            ax.axhline(0, color=GREY, linewidth=0.6)
            fired = [t for t, z in zip(steps, found.z, strict=True) if z]
            for n, t in enumerate(fired):
                ax.axvline(t, color=TARGET, linewidth=1.6, alpha=0.55, label=None if n else "spike z(t) = 1")
            ax.set_ylabel("value")
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        course.set(xlabel="step t of the code", xticks=steps)
        code.set_title(_sum(found), fontsize=9, loc="left")
        write_picture(figure, place)
    return place


def _sum(found: Course) -> str:
    """What a neuron's spikes add up to."""
    sent = [f"{d:.3g}" for d, z in zip(found.d, found.z, strict=True) if z]
    terms = " + ".join(([f"{found.offset:.3g}"] if found.offset else []) + sent) or "0"
    gain = "" if found.gain == 1 else f"{found.gain:.3g} x "
    whole = f"({terms})" if gain and len(sent) > 1 else terms
    at = f" at {found.position}" if len(found.position) > 1 else ""
    where = f"{_short(found.site)}, neuron {found.neuron:,}{at}"
    unit = " in its channel's own scale" if gain else ""
    return f"{where}\nv(1) = {found.v[0]:.4g}{unit}; output {gain}{whole} = {found.output:.4g}"


def draw_early(rows: Sequence[Mapping[str, Any]], path: Any) -> Path:
    """Accuracy of the running output over the last steps, a line for each network.

    Args:
        rows: each with `network`, `K`, `steps`, `top1` in percent after each of them, and `ann_top1`.
        path: of the picture, .png or .svg.

    Raises:
        FewSpikesError: another kind of file, or no matplotlib.
    """
    place = check_picture(path)
    with drawing("a curve") as plt:
        figure, ax = plt.subplots(figsize=(6.4, 3.6))
        for row, colour in zip(rows, (OURS, THEIRS, LEAST, TARGET, GREY), strict=False):
            before = [step - row["steps"][-1] for step in row["steps"]]
            label = f"{row['network']}, K = {row['K']}, answer after step {row['steps'][-1]}"
            ax.plot(before, row["top1"], "o-", color=colour, markersize=3, linewidth=1, label=label)
            ax.axhline(row["ann_top1"], color=colour, linewidth=0.8, linestyle="--", alpha=0.7)
        ax.set(
            xlabel="step, counted from the one that completes the answer",
            ylabel="accuracy of the running output (%)",
            ylim=(0, 101),
        )
        ax.set_title("dashed: the ANN", loc="left")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="lower right")
        write_picture(figure, place)
    return place


def draw_faults(curves: Sequence[Mapping[str, Any]], path: Any) -> Path:
    """Accuracy over the size of each fault, a panel for each network; bars are standard deviations over seeds.

    Args:
        curves: each with `network`, `fault`, `size`, `snn_top1` in percent and `standard_deviation`; a fault "none" is
            the network without any.
        path: of the picture, .png or .svg.

    Raises:
        FewSpikesError: another kind of file, or no matplotlib.
    """
    place, networks = check_picture(path), list(dict.fromkeys(row["network"] for row in curves))
    faults = [name for name in dict.fromkeys(row["fault"] for row in curves) if name != "none"]
    with drawing("a curve") as plt:
        figure, panels = plt.subplots(1, len(networks), figsize=(4.6 * len(networks), 4.0), sharey=True, squeeze=False)
        for ax, network in zip(panels[0], networks, strict=True):
            own = [row for row in curves if row["network"] == network]
            for n, fault in enumerate(faults):
                rows = sorted((row for row in own if row["fault"] == fault), key=lambda row: row["size"])
                ax.errorbar(
                    [row["size"] for row in rows],
                    [row["snn_top1"] for row in rows],
                    [row["standard_deviation"] or 0.0 for row in rows],
                    color=plt.get_cmap("tab10")(n),
                    marker="o",
                    markersize=3,
                    linewidth=1,
                    capsize=2,
                    label=fault if ax is panels[0][0] else None,
                )
            for row in own:
                if row["fault"] == "none":
                    ax.axhline(row["snn_top1"], color=GREY, linewidth=0.8, linestyle="--")
            ax.set(xscale="log", xlabel="size of the fault", ylim=(0, 101))
            ax.set_title(f"{network} (dashed: without faults)", loc="left", fontsize=9)
        panels[0][0].set_ylabel("top-1 (%)")
        figure.legend(loc="outside lower center", ncols=4, fontsize=7)
        write_picture(figure, place)
    return place


def _short(name: str) -> str:
    """A long name without its middle: networks repeat themselves there."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}...{name[-_LONGEST // 2 :]}"
