"""The paper's figures of single neurons: numbers only, no data and no network needed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewspikes.fitting import fit, measure, shipped
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.kernels import apply
from fewspikes.neuron.known_codes import published, relu_parameters
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import encode
from fewspikes.paper import published as paper
from fewspikes.paper.cifar import fig8a, gate_inputs
from fewspikes.paper.results import Folder, Found, Row
from fewspikes.paper.sources import Sources, Unavailable

SILU, SIGMOID = Activation("silu"), Activation("sigmoid")
INPUTS = (-0.5, 0.5)  # of Fig. 3
FIG_8B_STEPS, FIG_8_BITS = range(3, 17), range(4, 11)
_POINTS = 2001


def fig1(folder: Folder, sources: Sources) -> Found:
    """Recordings of biological neurons, which are not ours to show."""
    reason = (
        "recordings of a biological neuron (Allen Cell Types Database, specimen 561467633): not redrawn, because they "
        f"are no result of this library. They can be seen and fetched at {paper.RECORDINGS}"
    )
    return Found("fig1", [{"row": "paper", "weights": "none", "unavailable": reason}], notes=[reason])


def fig2(folder: Folder, sources: Sources) -> Found:
    """The neuron's diagram, with the values of a real one: SiLU, K=16, x = 0.5."""
    p = published("silu")
    return Found("fig2", [_dynamics_row(p, 0.5)], {"dynamics": _dynamics(p, 0.5)})


def fig3(folder: Folder, sources: Sources) -> Found:
    """Potential, threshold and spikes over time for a low and a high input, SiLU and sigmoid."""
    found = Found("fig3")
    for name in ("silu", "sigmoid"):
        for x in INPUTS:
            found.rows.append(_dynamics_row(published(name), x))
            found.series[f"{name} {x:g}"] = _dynamics(published(name), x)
    return found


def fig4(folder: Folder, sources: Sources) -> Found:
    """SiLU: the published neuron of K=16, and ours of half the steps and of the least error."""
    tables = {
        "paper": (published("silu"), "published table"),
        "calibrated": (shipped("silu", 8, "low-spikes"), "ours, K=8"),
        "least": (shipped("silu", 16, "low-error"), "ours, K=16"),
    }
    found = _approximation("fig4", SILU, tables)
    found.rows.insert(
        0,
        {
            "row": "paper",
            "weights": "none",
            "table": "the paper's text",
            "K": 16,
            "mse_main": paper.MSE_MAIN,
            "mse_outer": paper.MSE_OUTSIDE,
        },
    )
    found.notes.append(
        "main is [-2, 2], outer the rest of [-8, 12]. The published table has 3.71e-3 outside, better than the text's "
        "0.0064, in the order of a step that it fits"
    )
    return found


def fig5(folder: Folder, sources: Sources) -> Found:
    """Sigmoid: the published neuron of K=12, and ours."""
    tables = {
        "paper": (published("sigmoid"), "published table"),
        "calibrated": (shipped("sigmoid", 6, "low-spikes"), "ours, K=6"),
        "least": (shipped("sigmoid", 12, "low-error"), "ours, K=12"),
    }
    return _approximation("fig5", SIGMOID, tables)


def fig6(folder: Folder, sources: Sources) -> Found:
    """ReLU in closed form, with alpha as the figure's caption (25) and as the text (10) have it, and ours."""
    relu = Activation("relu")
    x = torch.linspace(-5.0, 30.0, _POINTS, dtype=torch.float64)
    found = Found("fig6", series={"x": x.tolist(), "target": relu(x).tolist()})
    for row, p, what in (
        ("paper", relu_parameters(10, 25.0), "K=10, alpha=25, down (caption)"),
        ("paper", relu_parameters(10, 10.0), "K=10, alpha=10, down (text)"),
        ("calibrated", relu_parameters(5, 10.0, "nearest"), "K=5, alpha=10, nearest (ours)"),
    ):
        y = apply(x, p)[0]
        end = float(np.sum(p.d))
        inside = (x >= 0) & (x <= end)
        error = (y - relu(x))[inside]
        found.rows.append(
            {
                "row": "measured" if row == "paper" else row,
                "weights": "none",
                "table": what,
                "K": p.K,
                "alpha": p.provenance["alpha"],
                "largest_error": float(error.abs().max()),
                "mse": float(error.square().mean()),
                "step": p.provenance["alpha"] * 2.0**-p.K,
            }
        )
        found.series[what] = y.tolist()
    found.notes.append(
        "errors on [0, largest output]; the paper's bound is one step, alpha 2^-K, and half of it to nearest"
    )
    return found


def fig7(folder: Folder, sources: Sources) -> Found:
    """Spikes against the gate input, with the paper's distribution of inputs and one that was measured."""
    found = Found("fig7")
    cases = (
        ("silu", paper.SILU_INPUTS, published("silu"), shipped("silu", 8, "low-spikes"), "cifar_efficientnet"),
        ("relu", paper.RELU_INPUTS, relu_parameters(6, 10.0), relu_parameters(5, 10.0, "nearest"), "resnet20"),
    )
    x = torch.linspace(-8.0, 12.0, _POINTS, dtype=torch.float64)
    for name, (mean, variance), theirs, ours, network in cases:
        wide = torch.linspace(mean - 8 * variance**0.5, mean + 8 * variance**0.5, 200_001, dtype=torch.float64)
        expected = _gaussian(wide, mean, variance)
        series: dict[str, Any] = {"x": x.tolist(), "gaussian": _gaussian(x, mean, variance).tolist()}
        try:
            series["measured"] = gate_inputs(folder, sources, network, name)
        except Unavailable as reason:
            found.notes.append(f"{name}: no measured distribution of inputs: {reason}")
        for row, p, what in (("measured", theirs, "the paper's"), ("calibrated", ours, "ours")):
            spikes = apply(x, p)[1].double()
            entry: Row = {
                "row": row,
                "weights": "none",
                "activation": name,
                "table": f"{what}, K={p.K}",
                "K": p.K,
                "mean_spikes_gaussian": _mean_spikes(p, wide, expected),
                "mean_spikes_measured": None,
                "inputs_mean": mean,
                "inputs_variance": variance,
            }
            if "measured" in series:
                seen = (torch.tensor(series["measured"][key], dtype=torch.float64) for key in ("x", "density"))
                entry["mean_spikes_measured"] = _mean_spikes(p, *seen)
                entry["measured_on"] = network
            found.rows.append(entry)
            series[what] = spikes.tolist()
        found.series[name] = series
    return found


def fig8(folder: Folder, sources: Sources) -> Found:
    """Accuracy and error against K, error against the bits of the parameters; the published tables beside."""
    found = Found("fig8")
    try:
        found.rows += [{"part": "a", **row} for row in fig8a(folder, sources)]
    except Unavailable as reason:
        found.rows.append({"part": "a", "row": "measured", "weights": "none", "unavailable": str(reason)})
    found.rows += [{"part": "b", **row} for row in _against_steps(folder)]
    for part, name, K in (("c", "silu", 16), ("d", "sigmoid", 12)):
        found.rows += [{"part": part, **row} for row in _against_bits(folder, name, K)]
    found.notes += [
        "b: error of SiLU on [-8, 12] (mse), in its main region [-2, 2] and outside; ours by fs.fit, bptt by the "
        "paper's own method; both weigh the two, so that one may be lower at the other's cost",
        "c, d: T, h, d on 2^Q equally spaced values in [-8, 8), error on [-8, 8], offset 0; published: rounded",
    ]
    return found


def _against_steps(folder: Folder) -> Iterable[Row]:
    p = measure(published("silu"), SILU)
    yield {
        "row": "paper",
        "weights": "none",
        "K": 16,
        "mse_main": p.mse_main,
        "mse_outer": p.mse_outer,
        "by": "published",
    }
    for K in FIG_8B_STEPS:

        def make(K: int = K) -> Row:
            ours, theirs = fit("silu", K), fit("silu", K, method="bptt", offset=False)
            return {
                "row": "calibrated",
                "weights": "none",
                "K": K,
                "mse_main": ours.mse_main,
                "mse_outer": ours.mse_outer,
                "mean_spikes": ours.mean_spikes,
                "bptt_mse_main": theirs.mse_main,
                "bptt_mse_outer": theirs.mse_outer,
                "seed": 0,
            }

        row = folder.row("fig8", f"b: K={K}", {}, make)
        yield {**row, **{f"{by}mse": _on_domain(row[f"{by}mse_main"], row[f"{by}mse_outer"]) for by in ("", "bptt_")}}


def _on_domain(main: float, outer: float) -> float:
    """The mean squared error on the whole of SiLU's domain, from that in its main region and outside."""
    (low, high), (a, b) = SILU.domain or (-8.0, 12.0), SILU.main_region or (-2.0, 2.0)
    share = (b - a) / (high - low)
    return share * main + (1 - share) * outer


def _against_bits(folder: Folder, name: str, K: int) -> Iterable[Row]:
    domain = (-8.0, 8.0)
    for bits in FIG_8_BITS:

        def make(bits: int = bits) -> Row:
            ours = fit(name, K, domain, bits=bits, offset=False)
            theirs = fit(name, K, domain, bits=bits, offset=False, method="bptt")
            rounded = measure(published(name).quantize(bits), Activation(name), domain)
            return {
                "row": "calibrated",
                "weights": "none",
                "activation": name,
                "K": K,
                "bits": bits,
                "mse": ours.mse,
                "bptt_mse": theirs.mse,
                "published_mse": rounded.mse,
                "seed": 0,
            }

        yield folder.row("fig8", f"{name}, Q={bits}", {"K": K}, make)


def _approximation(name: str, activation: Activation, tables: dict[str, tuple[FSParameters, str]]) -> Found:
    """A figure of f and its approximations, and their parameters over time."""
    low, high = activation.domain or (-8.0, 12.0)
    x = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    found = Found(name, series={"x": x.tolist(), "target": activation(x).tolist()})
    for row, (p, what) in tables.items():
        result = measure(p, activation)
        found.rows.append(
            {
                "row": "measured" if row == "paper" else "calibrated",
                "weights": "none",
                "table": what,
                "K": p.K,
                "mse_main": result.mse_main,
                "mse_outer": result.mse_outer,
                "mse": result.mse,
                "mean_spikes": result.mean_spikes,
            }
        )
        found.series[what] = {
            "y": apply(x, p)[0].tolist(),
            **{kind: getattr(p, kind).tolist() for kind in ("T", "h", "d")},
            "offset": p.offset,
        }
    return found


def _dynamics(p: FSParameters, x: float) -> dict[str, Any]:
    """v before each step, T, h, d, and the spikes, for one gate input."""
    z = encode(torch.tensor([x], dtype=torch.float64), p)[:, 0].double()
    h = torch.tensor(np.array(p.h))
    v = x - torch.cat([torch.zeros(1, dtype=torch.float64), (h * z).cumsum(0)])[:-1]
    return {
        "x": x,
        "activation": p.activation,
        "v": v.tolist(),
        "z": z.int().tolist(),
        "y": float((torch.tensor(np.array(p.d)) * z).sum() + p.offset),
        **{kind: getattr(p, kind).tolist() for kind in ("T", "h", "d")},
    }


def _dynamics_row(p: FSParameters, x: float) -> Row:
    found = _dynamics(p, x)
    wanted = float(Activation(p.activation)(torch.tensor([x], dtype=torch.float64)))
    return {
        "row": "measured",
        "weights": "none",
        "activation": p.activation,
        "K": p.K,
        "x": x,
        "spikes": sum(found["z"]),
        "spikes_at": [t + 1 for t, z in enumerate(found["z"]) if z],
        "y": found["y"],
        "target": wanted,
    }


def _gaussian(x: Tensor, mean: float, variance: float) -> Tensor:
    density: Tensor = torch.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * torch.pi * variance) ** 0.5
    return density


def _mean_spikes(p: FSParameters, x: Tensor, weight: Tensor) -> float:
    """Over inputs x with these weights."""
    return float((apply(x, p)[1].double() * weight).sum() / weight.sum())
