"""The ANN and the spiking network as makers of vectors: what `evaluate` says, and how alike their vectors are."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.measure.evaluation import EvaluationReport, evaluated
from fewspikes.measure.outputs import floats
from fewspikes.measure.ranks import Likeness, likeness
from fewspikes.network.spiking import SpikingNetwork

_OF_CLASSES = ("agreement", "ann_top1", "ann_top5", "snn_top1", "snn_top5", "drop", "drop_ci95")


@dataclass(frozen=True)
class EmbeddingReport:
    """A spiking network beside its ANN, of which each input gets a vector.

    Attributes:
        evaluation: cost and error; nothing in it is of classes.
        likeness: of both networks' vectors.
    """

    evaluation: EvaluationReport
    likeness: Likeness

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON: the evaluation's keys, and those of the likeness."""
        return self.evaluation.to_json() | asdict(self.likeness)

    def __str__(self) -> str:
        return self.text()

    def text(self, item: str = "image") -> str:
        """The report in lines.

        Args:
            item: what one input is called.
        """
        found = self.likeness
        rank = "unknown" if found.rank_correlation is None else f"{found.rank_correlation:.4f}"
        first, *others = self.evaluation.text(item).splitlines()
        kept = [line for line in others if not line.endswith(("no classes", "no labels"))]
        own = [("cosine", f"{found.cosine_mean:.4f} mean, {found.cosine_least:.4f} least"), ("rank correlation", rank)]
        width = kept[0].index(f"{self.evaluation.images:,}") - 2
        return "\n".join([first, kept[0], *(f"  {name:<{width}}{value}" for name, value in own), *kept[1:]])


class _Kept:
    """The vectors that a network gave."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def add(self, output: Any, images: int) -> None:
        self._parts.append(embedding_of(output).float().cpu())

    @property
    def whole(self) -> Tensor:
        return torch.cat(self._parts)


class _Vectors:
    """What both networks gave, whatever stands beside the inputs."""

    def __init__(self) -> None:
        self.ann, self.snn = _Kept(), _Kept()

    def expect(self, images: int, targets: Any) -> None:
        pass

    def scores(self) -> None:
        return None


def embedding_of(output: Any) -> Tensor:
    """The one tensor [batch, numbers] of an output.

    Raises:
        FewSpikesError: there is none, or several.
    """
    found = [tensor for tensor in floats(output) if tensor.ndim == 2]
    if len(found) != 1:
        raise FewSpikesError(
            f"a vector is one tensor [batch, numbers]; the network returns {len(found)} of them: pool over the tokens "
            "in the model, and return one"
        )
    return found[0]


def evaluate_embeddings(
    snn: SpikingNetwork,
    loader: Any,
    reference: nn.Module | None = None,
    *,
    name: str | None = None,
    synops: bool = True,
    progress: bool | None = None,
) -> EmbeddingReport:
    """Run `snn` and its ANN over the same inputs and compare their vectors; all as for `evaluate`.

    Args:
        snn: the converted network, with one output [batch, numbers].
        loader: a tensor, or a re-iterable of batches; what stands beside the inputs is not looked at.
        reference: the ANN, in eval mode; by default the graph of `snn` with its original activations.
        name: what the report calls the network.
        synops: count synaptic operations, too.
        progress: a bar on stderr; None shows it when stderr is a terminal.

    Raises:
        FewSpikesError: as `evaluate`, and outputs that are no vectors.
    """
    vectors = _Vectors()
    report = evaluated(snn, loader, reference, vectors, name, synops, progress)
    nothing: dict[str, Any] = dict.fromkeys(_OF_CLASSES)
    return EmbeddingReport(replace(report, **nothing), likeness(vectors.ann.whole, vectors.snn.whole))
