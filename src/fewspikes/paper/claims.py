"""Table 3 and the numbers that the paper's text claims, with the arithmetic behind each."""

from dataclasses import asdict

import torch

from fewspikes.neuron.kernels import apply
from fewspikes.neuron.known_codes import relu_parameters
from fewspikes.paper import published
from fewspikes.paper.cifar import CALIBRATED_STEPS, table2
from fewspikes.paper.imagenet import table1
from fewspikes.paper.results import Folder, Found
from fewspikes.paper.sources import Sources

_KEPT = (
    "row",
    "weights",
    "model",
    "images",
    "ann_top1",
    "snn_top1",
    "drop",
    "drop_ci95",
    "agreement",
    "neurons",
    "layers",
    "k",
    "spikes_per_image",
    "spikes_per_neuron",
    "latency_steps",
    "interval_steps",
    "data",
)


def table3(folder: Folder, sources: Sources) -> Found:
    """Other conversions as the paper quotes them, and our rows with both ways of counting steps."""
    found = Found("table3")
    for method in published.TABLE_3:
        found.rows.append({"row": "paper", "weights": "none", **asdict(method), "steps_counted": "by its authors"})
    for row in (*table2(folder, sources).rows, *table1(folder, sources).rows):
        if row["row"] != "paper" and row.get("snn_top1") is not None:
            ours = {key: row.get(key) for key in _KEPT}
            counted = {"steps": row["paper_latency_steps"], "steps_counted": "layers x K, as the paper does"}
            found.rows.append({**ours, "network": row["model"], "source": "fewspikes", **counted})
    found.notes.append(published.HYSTERESIS)
    found.notes.append("latency_steps: the sum of K over the longest chain of neurons; steps: the paper's layers x K")
    return found


def claims(folder: Folder, sources: Sources) -> Found:
    """What the paper says of itself in numbers: the arithmetic, and what it is with our networks."""
    found = Found("claims")
    rows = table2(folder, sources).rows
    stated = {row.model: row for row in published.TABLE_2}

    def ours(name: str, kind: str, key: str) -> float | None:
        return next((row.get(key) for row in rows if row["row"] == kind and row.get("model") == name), None)

    def add(claim: str, arithmetic: str, paper: float, measured: float | None, calibrated: float | None) -> None:
        kind = "paper" if measured is None else "measured"
        numbers = {"paper": paper, "measured": measured, "calibrated": calibrated}
        found.rows.append({"row": kind, "weights": "none", "claim": claim, "arithmetic": arithmetic, **numbers})

    def fewer(spikes: float, kind: str) -> float | None:
        per_image = ours("resnet14", kind, "spikes_per_image")
        return None if per_image is None else spikes / per_image

    half, fourteen = 2.0 * CALIBRATED_STEPS, stated["ResNet14"].spikes
    add("25 times the throughput of Inception-V3, rate-coded", "550 steps / 2K steps", 550 / 20, 550 / 20, 550 / half)
    add("125 times the throughput of ResNet34, rate-coded", "2,500 steps / 2K steps", 125.0, 125.0, 2500 / half)
    add(
        "40 times fewer spikes than a converted ResNet11",
        "8 million / spikes of ResNet14",
        8e6 / fourteen,
        fewer(8e6, "measured"),
        fewer(8e6, "calibrated"),
    )
    add(
        "7 times fewer spikes than a directly trained ResNet11",
        "7 x the paper's ResNet14 (the paper gives the ratio alone) / spikes of ResNet14",
        7.0,
        fewer(7 * fourteen, "measured"),
        fewer(7 * fourteen, "calibrated"),
    )
    silu, relu = published.TABLE_1
    add("about 2 spikes per SiLU neuron", "554.9M / 259M", silu.spikes / silu.neurons, None, None)
    add("about 1.5 spikes per ReLU neuron, ImageNet", "14.045M / 9.6M", relu.spikes / relu.neurons, None, None)
    for name in ("ResNet20", "ResNet14", "ResNet8"):
        row = stated[name]
        add(
            f"about 1.5 spikes per ReLU neuron, {name} on CIFAR-10",
            f"{row.spikes:,.0f} / {row.neurons:,}",
            row.spikes / row.neurons,
            ours(name.lower(), "measured", "spikes_per_neuron"),
            ours(name.lower(), "calibrated", "spikes_per_neuron"),
        )
    found.notes.append("paper: the arithmetic on the paper's own numbers, which its text rounds")
    if any(row["measured"] is None for row in found.rows):
        found.notes.append(
            "measured and calibrated come from the networks of table2, which says what each of them needs; of the "
            "claims on ImageNet nothing is measured here"
        )
    values = [_outputs(K) for K in (10, CALIBRATED_STEPS)]
    add("log2 N steps for N values of a ReLU", "different outputs of K=10 (ours: K=5), counted", 2**10, *values)
    return found


def _outputs(K: int) -> int:
    """How many different outputs a ReLU's code has."""
    x = torch.arange(0.0, 2.0**K, dtype=torch.float64)
    return len(apply(x, relu_parameters(K, 2.0**K))[0].unique())
