"""Rows of attention: scores, exponentials, and two products of two matrices that are signals.

    attention(q, k, v) = (e @ v) * (1 / sum(e))        e = exp(s - m), s = (scale q) @ k'

What normalises a row stands behind the product, so there are no neurons for normalised weights.
"""

from math import sqrt

import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.indexing import length, pick
from fewspikes.operators.masks import Masked, with_mask
from fewspikes.operators.rule import circuit
from fewspikes.operators.softmaxes import exponentials

_NORMALISED = ("softmax@", "_softmax@", "_safe_softmax@")


@circuit("scaled_dot_product_attention", takes=lambda call: {"query", "key"} <= call.signals)
def attended(call: Call, g: Builder) -> Ref:
    """Attention of any number of heads, with any mask."""
    given = call.node.arguments
    if call["dropout_p"]:
        raise FewSpikesError(f"{call.node.where} drops weights at random in eval mode: give it dropout_p=0")
    q, k, v = (g.now(given[name]) for name in ("query", "key", "value"))
    if call["enable_gqa"]:
        k, v = (_one_for_each_head(g, x, length(g, q, _heads(g, q))) for x in (k, v))
    scale = 1 / sqrt(length(g, q, -1)) if call["scale"] is None else call["scale"]
    q = q if scale == 1 else g.put("mul.Tensor", q, scale)
    masked = Masked(g.put("matmul", q, g.put("transpose.int", k, -2, -1)), None)
    if call["is_causal"]:
        masked = Masked(masked.scores, g.constant(torch.ones(length(g, q, -2), length(g, k, -2)).tril().bool()))
    if given["attn_mask"] is not None:
        masked = with_mask(call, given["attn_mask"], masked.scores, g)
    found = exponentials(call, masked, [-1], g)
    return g.put("mul.Tensor", g.put("matmul", found.e, v), g.put("reciprocal", found.total))


def _heads(g: Builder, x: Ref) -> int:
    return len(g.shape(x)) - 3


def _one_for_each_head(g: Builder, x: Ref, heads: int) -> Ref:
    """Keys or values of few heads, each repeated for those of the queries that share it."""
    axis = _heads(g, x)
    own = length(g, x, axis)
    return pick(g, x, axis, torch.arange(own).repeat_interleave(heads // own))


def _is_of_normalised_rows(call: Call) -> bool:
    """Whether its first factor is a softmax along its last axis, written out, and the second a signal, too."""
    before = call.graph[call.node.arguments["self"].name]
    if call.signals != {"self", "other"} or before.short != "mul" or not before.part.startswith(_NORMALISED):
        return False
    share = call.graph[before.arguments["other"].name]
    return share.short == "reciprocal" and (share.shape or ())[-1:] == (1,) and len(call.shape_of("other")) > 1


@circuit("matmul", takes=_is_of_normalised_rows)
def normalised_behind(call: Call, g: Builder) -> Ref:
    """(e * r) @ v as (e @ v) * r: what scales a row does so behind the product."""
    before = call.graph[call.node.arguments["self"].name]
    e, r = (g.now(before.arguments[name]) for name in ("self", "other"))
    return g.put("mul.Tensor", g.put("matmul", e, g.now(call.node.arguments["other"])), r)


ROWS = (attended, normalised_behind)
