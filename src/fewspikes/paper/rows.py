"""Rows of the paper's tables of networks: as it states them, as counted from shapes, and as measured."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesWarning
from fewspikes.conversion.conversion import convert
from fewspikes.measure.evaluation import evaluate
from fewspikes.models import load_model
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.paper.published import TableRow
from fewspikes.paper.results import Row
from fewspikes.paper.sources import Weighted


def stated(row: TableRow) -> Row:
    """A row of the paper under the names of an EvaluationReport."""
    K = 10 if "ResNet" in row.model else 16
    return {
        "row": "paper",
        "weights": "none",
        "model": row.model,
        "ann_top1": row.ann_top1,
        "ann_top5": row.ann_top5,
        "snn_top1": row.snn_top1,
        "snn_top5": row.snn_top5,
        "drop": round(row.ann_top1 - row.snn_top1, 2),
        "neurons": row.neurons,
        "layers": row.layers,
        "k": K,
        "spikes_per_image": row.spikes,
        "spikes_per_neuron": row.spikes / row.neurons,
        "paper_latency_steps": row.layers * K,
        "parameters": row.parameters,
    }


def counted(spec: str, options: dict[str, Any], shape: Sequence[int] | None = None) -> Row:
    """What follows from a network's shapes alone, with random weights.

    Args:
        spec: as for `load_model`.
        options: of `convert`.
        shape: of an image; None: the network's own.
    """
    loaded = load_model(spec, random=True)
    size = (3, *(loaded.preprocessing.size if loaded.preprocessing else (224, 224))) if shape is None else shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSpikesWarning)
        snn = convert(loaded.model, torch.zeros(1, *size), **options)
    report = snn.report
    return {
        "row": "measured",
        "weights": "none",
        "model": loaded.name,
        "neurons": report.neurons,
        "neurons_by_activation": report.neurons_by_activation,
        "share_by_activation": {name: 100.0 * n / report.neurons for name, n in report.neurons_by_activation.items()},
        "layers": report.layers,
        "k": report.k if isinstance(report.k, int) else sorted(set(report.k.values()), reverse=True),
        "latency_steps": report.latency_steps,
        "interval_steps": report.interval_steps,
        **_own(snn, loaded.model),
    }


def measured(
    kind: str,
    snn: SpikingNetwork,
    weighted: Weighted,
    test: Iterable[tuple[Tensor, Any]],
    same: bool = True,
    synops: bool = True,
) -> Row:
    """An evaluation as a row.

    Args:
        kind: "measured" or "calibrated".
        snn: the network.
        weighted: what it was converted from.
        test: images and labels.
        same: whether the ANN is the model as it was; False: the ANN changed likewise (circuits={"max": "average"}).
        synops: count synaptic operations.
    """
    report = evaluate(snn, test, weighted.model if same else None, name=weighted.loaded.name, synops=synops)
    return {"row": kind, "weights": weighted.weights, **report.to_json(), **_own(snn, weighted.model)}


def _own(snn: SpikingNetwork, model: nn.Module) -> Row:
    return {
        "paper_latency_steps": snn.report.paper_latency_steps,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
