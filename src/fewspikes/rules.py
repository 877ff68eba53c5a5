"""Rules of your own: what becomes of an operator that the library has no row for.

    fewspikes.convert(model, x, images, rules=[...])
    fewspikes.load(path, rules=[...])

A rule is a function under a decorator (`linear`, `moves`, `neurons`, `circuit`), or an object of a class without one
(`Elementwise`, `Digital`, `Shapes`). It names its operators as torch does: "mylib::roll" of a library of your own,
"roll" for one of ATen's. Nothing is registered anywhere: a rule counts where it is given. docs/rules.md has an
example of each.

    linear      part of the weighted sums between neurons; the function gives the boxes that its input reaches
    moves       the same, of an operator that moves elements and computes nothing
    neurons     an activation; the function gives the `Activation` that it is
    Elementwise any function of one signal, element by element, fitted to the images
    circuit     a rewrite into other operators; the function gives what stands for the result
    Digital     left to a digital processor, with the reason
    Shapes      sizes and constants: what it returns depends on shapes alone

The function is given a `Call`: `call["name"]` is an argument, `call.shape` the shape of the result for two images,
`call.shape_of("name")` that of a tensor among the arguments, `call.boxes("name")` what the elements of a signal reach
so far: boxes, which the function leads on through its operator. In `boxes` is what leads them through a linear map,
axis by axis; `windows` has the matrices of pools and convolutions, `reshaping` what keeps the elements in their order;
and `along` asks the operator itself. A circuit is given a `Builder`, too: `g.call("add.Tensor", a, b)` is a new call.
"""

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.neuron.activation import Activation
from fewspikes.operators.call import Call
from fewspikes.operators.probing import along
from fewspikes.operators.rule import (
    Circuit,
    Digital,
    Elementwise,
    Linear,
    Neurons,
    Rule,
    Shapes,
    circuit,
    linear,
    moves,
    neurons,
)
from fewspikes.reach import boxes, reshaping, windows
from fewspikes.reach.boxes import Box

__all__ = [
    "Activation",
    "Box",
    "Builder",
    "Call",
    "Circuit",
    "Digital",
    "Elementwise",
    "Linear",
    "Neurons",
    "Ref",
    "Rule",
    "Shapes",
    "along",
    "boxes",
    "circuit",
    "linear",
    "moves",
    "neurons",
    "reshaping",
    "windows",
]
