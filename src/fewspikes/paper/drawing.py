"""Pictures of the figures, from their numbers alone: draws, computes nothing. Needs matplotlib."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewspikes.base.figures import FORMATS, GREY, LEAST, OURS, TARGET, THEIRS, drawing, write_picture
from fewspikes.paper import published as paper
from fewspikes.paper.results import Found, Row


def draw(found: Found, folder: Path) -> list[Path]:
    """Write NAME.png and NAME.svg of a figure; returns their paths, none for what is no figure.

    Raises:
        FewSpikesError: matplotlib is not installed.
    """
    if found.name not in _FIGURES:
        return []
    with drawing("a picture (--no-pictures leaves it out)") as plt:
        figure = _FIGURES[found.name](plt, found)
        paths = [folder / f"{found.name}.{kind}" for kind in FORMATS]
        for path in paths:
            write_picture(figure, path)
    return paths


def _fig2(plt: Any, found: Found) -> Any:
    values = found.series["dynamics"]
    figure, axes = plt.subplots(2, 1, figsize=(8.2, 5.8), height_ratios=[1.15, 1])
    ax = axes[0]
    ax.set_axis_off()
    ax.set(xlim=(0, 10), ylim=(-0.4, 4))

    def box(x: float, y: float, text: str, width: float = 1.7, colour: str = "black") -> None:
        ax.add_patch(plt.Rectangle((x, y), width, 0.9, fill=False, edgecolor=colour, linewidth=1.2))
        ax.text(x + width / 2, y + 0.45, text, ha="center", va="center")

    def arrow(x: float, y: float, to: float, at: float) -> None:
        ax.annotate("", (to, at), (x, y), arrowprops={"arrowstyle": "->", "linewidth": 1.1})

    def inputs(at: float) -> None:
        for y in (at + 0.45, at, at - 0.45):
            ax.plot([0.1, 1.2], [y, at], color=GREY, linewidth=1)

    ax.text(0, 3.75, "a  ANN neuron", weight="bold")
    inputs(2.95)
    box(1.2, 2.5, "x = Σ w a")
    arrow(2.9, 2.95, 3.5, 2.95)
    box(3.5, 2.5, "f(x) = x σ(x)", 1.9, TARGET)
    arrow(5.4, 2.95, 6.2, 2.95)
    ax.text(6.3, 2.95, f"f({values['x']:g}) = {found.rows[0]['target']:.4f}", va="center")
    ax.text(0, 1.95, "b  FS-neuron, K = 16", weight="bold")
    inputs(1.05)
    box(1.2, 0.6, "v(1) = x")
    arrow(2.9, 1.05, 3.5, 1.05)
    box(3.5, 0.6, "z(t) = Θ(v(t) − T(t))", 2.4, THEIRS)
    arrow(5.9, 1.05, 6.7, 1.05)
    box(6.7, 0.6, "Σ d(t) z(t)", 1.5, OURS)
    arrow(8.2, 1.05, 8.7, 1.05)
    ax.text(8.75, 1.05, f"{found.rows[0]['y']:.4f}", va="center")
    ax.annotate(
        "",
        (2.05, 0.6),
        (4.7, 0.6),
        arrowprops={"arrowstyle": "->", "connectionstyle": "bar,fraction=-0.16", "color": GREY},
    )
    ax.text(3.4, -0.3, "v(t+1) = v(t) − h(t) z(t)", ha="center", color=GREY)
    ax = axes[1]
    steps = range(1, len(values["T"]) + 1)
    for kind, colour, label in (("T", THEIRS, "T(t)"), ("h", LEAST, "h(t)"), ("d", OURS, "d(t)")):
        ax.plot(steps, values[kind], "o-", color=colour, label=label, markersize=3, linewidth=1)
    _spikes(ax, values)
    ax.set(xlabel="time step t", ylabel="value", title=f"SiLU, x = {values['x']:g}: {sum(values['z'])} spikes")
    ax.legend(loc="upper right", ncols=4)
    return figure


def _fig3(plt: Any, found: Found) -> Any:
    figure, axes = plt.subplots(2, 2, figsize=(8.2, 5), sharex="col")
    names, inputs = ("silu", "sigmoid"), sorted({values["x"] for values in found.series.values()})
    for row, x in zip(axes, inputs, strict=True):
        for ax, name in zip(row, names, strict=True):
            values = found.series[f"{name} {x:g}"]
            steps = range(1, len(values["T"]) + 1)
            ax.plot(steps, values["T"], color=THEIRS, label="threshold T(t)", drawstyle="steps-mid")
            ax.plot(steps, values["v"], color=OURS, label="potential v(t)", marker="o", markersize=3, linewidth=1)
            _spikes(ax, values)
            wanted = next(r["target"] for r in found.rows if r["activation"] == name and r["x"] == x)
            ax.set_title(f"{_label(name)}, x = {x:g}: f̂ = {values['y']:.3f} (f = {wanted:.3f})")
            ax.set_ylabel("v, T")
    for ax in axes[1]:
        ax.set_xlabel("time step t")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _spikes(ax: Any, values: Mapping[str, Any]) -> None:
    """The spikes as vertical lines at their steps."""
    fired = [t + 1 for t, z in enumerate(values["z"]) if z]
    for i, t in enumerate(fired):
        ax.axvline(t, color=TARGET, linewidth=1.6, alpha=0.55, label=None if i else "spike z(t) = 1")


def _approximation(plt: Any, found: Found) -> Any:
    tables = [row["table"] for row in found.rows if row["table"] in found.series]
    figure, panels = plt.subplot_mosaic([["a", "b"], ["error", "b"]], figsize=(9.4, 5), height_ratios=[1.5, 1])
    x, target = found.series["x"], found.series["target"]
    panels["a"].plot(x, target, color=TARGET, linewidth=2.2, label=f"{_label(found.name)} (exact)")
    for table, colour in zip(tables, (THEIRS, OURS, LEAST), strict=False):
        row = next(r for r in found.rows if r["table"] == table)
        error = f"{row['mse']:.2g}" if row["mse_main"] is None else f"{row['mse_main']:.2g} / {row['mse_outer']:.2g}"
        y = found.series[table]["y"]
        panels["a"].plot(x, y, color=colour, linewidth=0.9, label=f"{table}: MSE {error}")
        panels["error"].plot(x, [p - q for p, q in zip(y, target, strict=True)], color=colour, linewidth=0.7)
    panels["a"].set_title("a  approximation", loc="left")
    if found.name == "fig4":
        for name in ("a", "error"):
            panels[name].axvspan(-2, 2, color=GREY, alpha=0.12, linewidth=0)
        panels["a"].text(0, max(target) * 0.55, "main region", ha="center", color=GREY, fontsize=8)
        stated = f"the paper's text: MSE {paper.MSE_MAIN:g} in the main region / {paper.MSE_OUTSIDE:g} outside"
        panels["a"].set_title(f"a  {stated}", loc="left")
    panels["a"].set(ylabel="output")
    panels["a"].legend(loc="upper left")
    panels["error"].set(xlabel="gate input x", ylabel="error f̂(x) − f(x)")
    theirs = found.series[tables[0]]
    steps = range(1, len(theirs["T"]) + 1)
    for kind, colour in (("T", THEIRS), ("h", LEAST), ("d", OURS)):
        panels["b"].plot(steps, theirs[kind], "o-", color=colour, label=f"{kind}(t)", markersize=3, linewidth=1)
    panels["b"].axhline(0, color=GREY, linewidth=0.6)
    panels["b"].set(xlabel="time step t", ylabel="value")
    panels["b"].set_title(f"b  parameters of the {tables[0]}", loc="left")
    panels["b"].legend(loc="lower left")
    return figure


def _fig6(plt: Any, found: Found) -> Any:
    figure, axes = plt.subplots(2, 2, figsize=(9.4, 5.4), sharex="col", height_ratios=[1.6, 1])
    x, target = found.series["x"], found.series["target"]
    names = [row["table"] for row in found.rows]
    for (ax, below), shown in zip(axes.T, (names[:1], names[1:]), strict=True):
        ax.plot(x, target, color=TARGET, linewidth=2.2, label="ReLU (exact)")
        for name, colour in zip(shown, (THEIRS, OURS), strict=False):
            row = next(r for r in found.rows if r["table"] == name)
            y = found.series[name]
            ax.plot(x, y, color=colour, linewidth=1, label=f"{name}: largest error {row['largest_error']:.3g}")
            below.plot(x, [p - q for p, q in zip(y, target, strict=True)], color=colour, linewidth=0.7)
        ax.legend(loc="upper left")
        below.set(xlabel="gate input x")
    (left, right), (below_left, below_right) = axes
    left.set(ylabel="output", xlim=(-5, 30), title="as the figure's caption has it")
    right.set(xlim=(-2, 12), ylim=(-0.5, 14), title="as the text has it, and ours with half the steps")
    below_left.set(ylabel="error f̂(x) − f(x)", ylim=(-0.03, 0.01))  # beyond the largest output it falls as -x
    below_right.set(ylim=(-0.2, 0.2))
    return figure


def _fig7(plt: Any, found: Found) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 4.6))
    for ax, (name, letter) in zip(axes, (("silu", "a"), ("relu", "b")), strict=True):
        series = found.series[name]
        rows = [row for row in found.rows if row["activation"] == name]
        for row, colour, key in zip(rows, (THEIRS, OURS), ("the paper's", "ours"), strict=True):
            label = f"{row['table']}: {row['mean_spikes_gaussian']:.2f} spikes on average"
            ax.plot(series["x"], series[key], color=colour, linewidth=1, label=label, drawstyle="steps-mid")
        twin = ax.twinx()
        twin.spines["right"].set_visible(True)
        mean, variance = rows[0]["inputs_mean"], rows[0]["inputs_variance"]
        twin.plot(
            series["x"],
            series["gaussian"],
            color=TARGET,
            label=f"the paper's inputs: mean {mean:g}, variance {variance:g}",
        )
        if "measured" in series:
            seen = series["measured"]
            twin.plot(
                seen["x"],
                seen["density"],
                color=GREY,
                linewidth=0.9,
                label=f"measured, {rows[0]['measured_on']}: {rows[0]['mean_spikes_measured']:.2f} and "
                f"{rows[1]['mean_spikes_measured']:.2f} spikes",
            )
            twin.set_ylim(0, 1.15 * max(*series["gaussian"], *seen["density"]))
        twin.set_ylabel("density of gate inputs")
        ax.set(xlabel="gate input x", ylabel="spikes", xlim=(-8, 12), ylim=(0, 17 if name == "silu" else 9))
        ax.set_title(f"{letter}  {_label(name)}", loc="left")
        handles, labels = (
            a + b for a, b in zip(ax.get_legend_handles_labels(), twin.get_legend_handles_labels(), strict=True)
        )
        ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _fig8(plt: Any, found: Found) -> Any:
    figure, axes = plt.subplots(2, 2, figsize=(9.4, 7))
    _against_k(axes[0, 0], [row for row in found.rows if row["part"] == "a"])
    rows = [row for row in found.rows if row["part"] == "b" and row["row"] == "calibrated"]
    published = next(row for row in found.rows if row["part"] == "b" and row["row"] == "paper")
    ax = axes[0, 1]
    steps = [row["K"] for row in rows]
    for key, style, where in (("mse_main", "-", "main region"), ("mse_outer", "--", "outside")):
        ax.semilogy(
            steps, [row[key] for row in rows], style, color=OURS, marker="o", markersize=3, label=f"ours, {where}"
        )
        ax.semilogy(
            steps, [row[f"bptt_{key}"] for row in rows], style, color=THEIRS, linewidth=1, label=f"bptt, {where}"
        )
        ax.semilogy(
            [16],
            [published[key]],
            "x" if key == "mse_main" else "+",
            color=TARGET,
            markersize=8,
            label=f"published, {where}",
        )
    ax.set(xlabel="time steps K", ylabel="mean squared error")
    ax.set_title("b  SiLU against K", loc="left")
    ax.legend(fontsize=7, loc="lower left")
    for ax, part, name in ((axes[1, 0], "c", "SiLU, K=16"), (axes[1, 1], "d", "sigmoid, K=12")):
        rows = [row for row in found.rows if row["part"] == part]
        bits = [row["bits"] for row in rows]
        for key, colour, label in (
            ("published_mse", TARGET, "published table, rounded"),
            ("bptt_mse", THEIRS, "bptt, grid in the loop"),
            ("mse", OURS, "ours"),
        ):
            ax.semilogy(bits, [row[key] for row in rows], "o-", color=colour, markersize=3, label=label)
        ax.set(xlabel="bits Q of each parameter", ylabel="mean squared error on [−8, 8]")
        ax.set_title(f"{part}  {name}", loc="left")
        ax.legend()
    return figure


def _against_k(ax: Any, rows: list[Row]) -> None:
    stated = next(row for row in paper.TABLE_2 if row.model == "ResNet50")
    ax.plot(
        [10],
        [stated.snn_top1],
        "x",
        color=TARGET,
        markersize=9,
        label=f"the paper's ResNet50, K=10: {stated.snn_top1:g}%",
    )
    shown = [row for row in rows if row.get("snn_top1") is not None]
    for kind, colour, label in (("measured", THEIRS, "α=25, down"), ("calibrated", OURS, "calibrated")):
        mine = [row for row in shown if row["row"] == kind]
        if mine:
            ax.plot(
                [row["k"] for row in mine],
                [row["snn_top1"] for row in mine],
                "o-",
                color=colour,
                markersize=3,
                label=f"{mine[0]['model']}, {label}",
            )
    if shown:
        ax.axhline(shown[0]["ann_top1"], color=GREY, linewidth=0.8)
        ax.text(3, shown[0]["ann_top1"] + 1, f"ANN {shown[0]['ann_top1']:.2f}%", color=GREY, fontsize=8)
    else:
        ax.text(0.5, 0.5, "needs CIFAR-10 and weights", ha="center", transform=ax.transAxes, color=GREY)
    ax.set(xlabel="time steps K", ylabel="test accuracy (%)", ylim=(0, 100), xlim=(2.5, 10.5))
    ax.set_title("a  accuracy on CIFAR-10 against K", loc="left")
    ax.legend(loc="center left")


def _label(name: str) -> str:
    return {"silu": "SiLU", "relu": "ReLU", "fig4": "SiLU", "fig5": "sigmoid"}.get(name, name)


_FIGURES: dict[str, Callable[[Any, Found], Any]] = {
    "fig2": _fig2,
    "fig3": _fig3,
    "fig4": _approximation,
    "fig5": _approximation,
    "fig6": _fig6,
    "fig7": _fig7,
    "fig8": _fig8,
}
