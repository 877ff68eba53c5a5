"""How alike two networks place the same things: cosines of their vectors, and how both rank all pairs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from fewspikes.base.errors import FewSpikesError


@dataclass(frozen=True)
class Likeness:
    """The vectors of two networks for the same things.

    Attributes:
        cosine_mean, cosine_least: over the things, of a thing's two vectors.
        rank_correlation: Spearman's, of the cosines of all pairs of things in one network with those in the other;
            None where there are fewer than two pairs, or all are equal.
    """

    cosine_mean: float
    cosine_least: float
    rank_correlation: float | None


@dataclass(frozen=True)
class Retrieval:
    """Documents that two networks find for the same queries.

    Attributes:
        queries, documents: how many.
        rank_correlation: Spearman's of each query's ranking of all documents, mean over the queries.
        rank_correlation_least: of them.
        same_first: share of queries for which both put the same document first, in percent.
    """

    queries: int
    documents: int
    rank_correlation: float
    rank_correlation_least: float
    same_first: float


def likeness(a: Float[Tensor, "things numbers"], b: Float[Tensor, "things numbers"]) -> Likeness:
    """Of the vectors of two networks, of one thing a row.

    Raises:
        FewSpikesError: no rows, or other shapes.
    """
    _check(a, b)
    a, b = (normalize(x.double(), dim=1) for x in (a, b))
    cosines = (a * b).sum(1)
    above = torch.triu(torch.ones(len(a), len(a), dtype=torch.bool), 1)
    found = spearman((a @ a.T)[above], (b @ b.T)[above])
    return Likeness(float(cosines.mean()), float(cosines.min()), found)


def retrieval(
    queries: tuple[Float[Tensor, "queries numbers"], Float[Tensor, "queries numbers"]],
    documents: tuple[Float[Tensor, "documents numbers"], Float[Tensor, "documents numbers"]],
) -> Retrieval:
    """Of the vectors of two networks for queries and for documents.

    Raises:
        FewSpikesError: other shapes, or a query to which all documents are equally near.
    """
    _check(*queries)
    _check(*documents)
    first, second = (
        normalize(q.double(), dim=1) @ normalize(d.double(), dim=1).T for q, d in zip(queries, documents, strict=True)
    )
    ranked = [spearman(a, b) for a, b in zip(first, second, strict=True)]
    found = [one for one in ranked if one is not None]
    if len(found) < len(ranked):
        raise FewSpikesError("all documents are equally near to a query; a ranking needs two or more that differ")
    same = (first.argmax(1) == second.argmax(1)).double().mean()
    return Retrieval(len(first), first.shape[1], sum(found) / len(found), min(found), 100.0 * float(same))


def spearman(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float | None:
    """The correlation of the ranks, equal values at their mean rank; None where one of both does not vary.

    >>> round(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0, 20.0])), 6)
    0.5
    """
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    size = float(x.norm() * y.norm()) if len(x) > 1 else 0.0
    return float(x @ y) / size if size > 0 else None


def _ranks(values: Tensor) -> Tensor:
    _, place, times = values.unique(return_inverse=True, return_counts=True)
    ranks: Tensor = times.cumsum(0).double() - (times - 1) / 2
    return ranks[place]


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape or not a.numel():
        raise FewSpikesError(f"vectors must be two tensors [things, numbers] of one shape; got {a.shape} and {b.shape}")
