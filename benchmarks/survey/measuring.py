"""One model of the survey: captured, converted, and its spiking network compared with it."""

import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import fewspikes as fs
from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion import building
from fewspikes.conversion.settings import circuits_of
from fewspikes.graph.capture import captured_model
from fewspikes.operators.rewriting import prepared
from kinds.comparing import batches, difference, equal, first, run, tensors

NEAR = 1e-4  # relative difference that the ANN form may have from the model
_SMALL, _LARGE = 1 << 10, 1 << 19  # elements of an input: of smaller ones there are more images, of larger ones fewer
_TIMES, _FEW = 16, 4  # how many times as many, and how few
AT_ONCE, _OTHER_BATCH, LONGEST = 4, 3, 400
_LEARNED = 16  # images of which batch norms know: of few, one number an image (a pooled map) says nothing
_REFUSED = re.compile(r"operator (\w\S*)( of several signals| with these arguments)?(?: \((\d+) times\))?")
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How the models of a survey are converted.

    Attributes:
        circuits: as for `convert`.
        K: time steps of every site.
        images: random ones to calibrate on, and as many others to measure on; see `images_of`.
        effort: of the fits.
        seed: of weights and images.
    """

    circuits: str | Mapping[str, str] = field(default_factory=dict)
    K: int = 16
    images: int = 16
    effort: str = "quick"
    seed: int = 0


def measured(
    build: Callable[[], nn.Module], inputs: Callable[[int], Any], options: Options, shake: bool = True
) -> Iterator[dict[str, Any]]:
    """What is known of a model after each step; the last row has it all.

    Args:
        build: makes the model in eval mode.
        inputs: a random batch of so many images, as a tuple or a dict.
        options: of the conversion.
        shake: give the model statistics and parameters as training would leave them.

    Yields:
        `status`: begun, ok, wrong, capture refused, refused, calibration refused; `why` and `operators` of a refusal;
        and what was measured.
    """
    row: dict[str, Any] = {"status": "begun"}
    watch = Watch(row)
    torch.manual_seed(options.seed)
    model = watch("build", lambda: shaken(build(), inputs) if shake else build())
    example, size = inputs(1), images_of(inputs(1), options.images)
    seen, other = batches(inputs(size), AT_ONCE), inputs(size)
    yield row
    try:
        captured = watch("export", lambda: captured_model(model, example))
    except FewSpikesError as error:
        yield row | {"status": "capture refused", "why": str(error)[:LONGEST]}
        return
    yield row
    try:
        watch("rewrite", lambda: prepared(captured, circuits_of(options.circuits)))
    except FewSpikesError as error:
        yield row | {"status": "refused", "operators": refused(str(error)), "why": str(error)[:LONGEST]}
        return
    yield row
    settings = {"K": options.K, "circuits": options.circuits, "effort": options.effort, "seed": options.seed}
    try:
        with patch.object(building, "captured_model", lambda *_, **__: captured):
            snn = watch("convert", lambda: fs.convert(model, example, seen, progress=False, **settings))
    except FewSpikesError as error:
        yield row | {"status": "calibration refused", "why": str(error)[:LONGEST]}
        return
    row |= {"images": size, **_described(snn)}
    yield row
    row |= watch("check", lambda: _compared(snn, model, other))
    right = row["difference"] <= NEAR and row["other_batch"] <= NEAR and row["saved_equal"]
    yield row | {"status": "ok" if right else "wrong"}


def refused(message: str) -> dict[str, int]:
    """The operators that a refusal names, and how often each is there.

    >>> refused("no rule for operator aten.a.b of several signals (3 times) at x; operator aten.c.d at y; replace it")
    {'aten.a.b of several signals': 3, 'aten.c.d': 1}
    """
    return {f"{name}{how}": int(times or 1) for name, how, times in _REFUSED.findall(message)}


@torch.no_grad()
def shaken(model: nn.Module, inputs: Callable[[int], Any]) -> nn.Module:
    """The model with batch norms that know a random batch, and nothing that is the same number throughout.

    What batch norms give lies about 1, mostly above 0: about 0, a deep network of random weights is chaos, in which a
    rounding in the first layer becomes a share of a thousandth of the output.
    """
    for parameter in model.parameters():
        if parameter.numel() > 1 and parameter.is_floating_point() and bool((parameter == parameter.view(-1)[0]).all()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
        if norm.affine:
            norm.bias.add_(1.0)
    if norms:
        run(model, inputs(images_of(inputs(1), _LEARNED)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_mean.add_(0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
        norm.running_var.mul_(torch.rand_like(norm.running_var) + 0.5)
    return model.eval()


class Watch:
    """Writes into a row how many seconds each step took."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._seconds: dict[str, float] = row.setdefault("seconds", {})

    def __call__(self, step: str, work: Callable[[], T]) -> T:
        """What the work gives."""
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return work()
        finally:
            self._seconds[step] = round(time.perf_counter() - started, 3)


def images_of(example: Any, wanted: int, few: int = _FEW) -> int:
    """How many images: a small network needs more of them for its sites to see as much, of large inputs `few` do."""
    size = max(value.numel() for value in (example.values() if isinstance(example, Mapping) else example))
    return wanted * _TIMES if size < _SMALL else wanted if size < _LARGE else min(wanted, few)


def _described(snn: fs.SpikingNetwork) -> dict[str, Any]:
    report = snn.report
    digital = Counter(entry.operator for entry in report.left_digital)
    return {"sites": report.layers, "neurons": report.neurons, "left_digital": dict(digital.most_common())}


@torch.no_grad()
def _compared(snn: fs.SpikingNetwork, model: nn.Module, other: Any) -> dict[str, Any]:
    """The ANN form and the spiking network beside the model, and the network saved and loaded."""
    ann, one, few = snn.as_ann(), first(other, 1), first(other, _OTHER_BATCH)
    parts = [(part,) if isinstance(part, Tensor) else part for part in batches(other, AT_ONCE)]
    with tempfile.TemporaryDirectory() as folder:
        fs.save(snn, Path(folder) / "network.fs")
        loaded = fs.load(Path(folder) / "network.fs")
    return {
        "difference": difference(run(ann, one), run(model, one)),
        "other_batch": difference(run(ann, few), run(model, few)),
        "saved_equal": equal(run(loaded, few), run(snn, few)),
        "error": error_of(snn, model, parts),
    }


def error_of(snn: Callable[..., Any], model: Callable[..., Any], parts: Sequence[Any]) -> float | None:
    """||s - a|| / ||a - mean of a over images|| of all floating outputs together; None where all images have one a."""
    s, a = (torch.cat([_flat(run(network, part)) for part in parts]) for network in (snn, model))
    spread = (a - a.mean(0)).norm()
    return float((s - a).norm() / spread) if float(spread) > 0 else None


def _flat(output: Any) -> Tensor:
    """All floating numbers of an output, [images, numbers]."""
    return torch.cat(
        [value.reshape(len(value), -1).double() for value in tensors(output) if value.is_floating_point()], 1
    )
