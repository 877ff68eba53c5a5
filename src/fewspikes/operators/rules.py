"""Which rule carries the connections through which operator. What is not listed here is unknown, and says so."""

from collections.abc import Iterable

from torch import fx

from fewspikes.graph.capture import op_name
from fewspikes.operators import maps, moves
from fewspikes.operators.arguments import Shapes
from fewspikes.operators.call import Known, Rule, call_of
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Unknown


def _rules() -> dict[str, Rule]:
    by_rule: dict[Rule, str] = {
        maps.convolved: "conv1d.default conv1d.padding conv2d.default conv2d.padding",
        maps.linear: "linear.default",
        maps.multiplied: "matmul.default mm.default",
        maps.pooled: "avg_pool1d.default avg_pool2d.default",
        maps.adaptively_pooled: "adaptive_avg_pool1d.default adaptive_avg_pool2d.default",
        maps.summed: "mean.dim sum.dim_IntList",
        maps.elementwise: (
            "add.Tensor sub.Tensor rsub.Tensor mul.Tensor div.Tensor neg.default "
            "add.Scalar sub.Scalar rsub.Scalar mul.Scalar div.Scalar"
        ),
        moves.reshaped: "flatten.using_ints reshape.default squeeze.dim squeeze.dims unsqueeze.default",
        moves.transposed: "transpose.int t.default",
        moves.permuted: "permute.default",
        moves.expanded: "expand.default",
        moves.sliced: "slice.Tensor",
        moves.selected: "select.int",
        moves.split: "split.Tensor split_with_sizes.default chunk.default unbind.int",
        moves.padded: "pad.default constant_pad_nd.default",
        moves.concatenated: "cat.default",
        moves.stacked: "stack.default",
    }
    return {f"aten.{name}": rule for rule, names in by_rule.items() for name in names.split()}


RULES = _rules()


def apply(node: fx.Node, known: Known, shapes: Shapes) -> Iterable[Box]:
    """The connections of a linear operator's result (boxes not yet tidied or united).

    Raises:
        Unknown: no rule for the operator, or the rule cannot tell.
    """
    name = op_name(node)
    if name == "getitem":
        return moves.piece(node, known, shapes)
    if name not in RULES:
        raise Unknown("no rule for its connections")
    return RULES[name](call_of(node, known, shapes))
