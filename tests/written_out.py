"""Converted networks written out by hand as plain lists: the weights are read from the models' own modules.

A network is drawn as its forward pass is written, one image at a time; a value is a list of `Form`, one per element.
Of the converted network only the neurons are taken: their codes, and each channel's shift, scale and gain.
"""

from collections import Counter
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fewspikes import convert
from witness import Layer, Net, Synapse


class Form(NamedTuple):
    """A number, and what spikes add: weights by (layer, neuron, held element of a sum)."""

    number: float
    weights: dict

    def times(self, weight):
        return Form(weight * self.number, {key: weight * own for key, own in self.weights.items()})


def total(forms, number=0.0):
    """The sum of forms and a number."""
    weights = Counter()
    for form in forms:
        number += form.number
        for key, weight in form.weights.items():
            weights[key] += weight
    return Form(number, dict(weights))


class Drawing:
    """A network on the way to a `Net`.

    Args:
        neurons: the converted network's, by site.
        image: numbers, which are analog current.
    """

    def __init__(self, neurons, image):
        self.neurons, self.image = neurons, [Form(number, {}) for number in image.flatten().tolist()]
        self.layers, self.names, self.taken, self.held = [], [], [], []

    def fires(self, name, forms):
        """A layer of neurons, and what it sends."""
        neuron, size = self.neurons[name], len(forms)
        code, number = neuron.code, len(self.layers)
        assert neuron.axis == 1
        own = [_per_neuron(values, size) for values in (neuron.shift, neuron.scale, neuron.gain)]
        own = [values or [still] * size for values, still in zip(own, (0.0, 1.0, 1.0), strict=True)]
        self.layers.append(
            Layer(*(v.tolist() for v in (code.T, code.h, code.d)), code.offset, self._ready(forms), *own)
        )
        self.names.append(name)
        self.taken.append(forms)
        return [Form(0.0, {(number, i, None): 1.0}) for i in range(size)]

    def gated(self, gates, held):
        """Products: spikes of the gates let through what is held."""
        number = len(self.held)
        self.held.append(held)
        return [Form(0.0, {(*next(iter(gate.weights))[:2], (number, i)): 1.0}) for i, gate in enumerate(gates)]

    def _opens(self, layer, held):
        """The step after which a layer's spikes may arrive."""
        start = self.layers[layer].start
        return start if held is None else max(start, self._ready(self.held[held[0]]))

    def _ready(self, forms):
        sources = {(layer, held) for form in forms for layer, _, held in form.weights}
        return max((self._opens(*source) + len(self.layers[source[0]].T) for source in sources), default=0)

    def net(self, output):
        """All of it, with a last sum."""
        count, synapses = len(self.layers), []
        sums = [*self.taken, *self.held, output]
        for at, forms in enumerate(sums):
            for element, form in enumerate(forms):
                for (layer, neuron, held), weight in form.weights.items():
                    delay = self._opens(layer, held) - self.layers[layer].start
                    place = None if held is None else (count + held[0], held[1])
                    synapses.append(Synapse(layer, neuron, at, element, weight, delay, place))
        return Net(self.layers, [[form.number for form in forms] for forms in sums], synapses, self._ready(output))


def _per_neuron(values, size):
    return [] if values is None else [values[i * len(values) // size].item() for i in range(size)]


def dense(module, x):
    """A linear module's sums."""
    rows = zip(module.weight.tolist(), module.bias.tolist(), strict=True)
    return [total((form.times(w) for form, w in zip(x, row, strict=True)), bias) for row, bias in rows]


def convolved(module, x, size):
    """A convolution's sums, of maps of size x size."""
    (kernel, _), (stride, _), (padding, _) = module.kernel_size, module.stride, module.padding
    weight, bias, places = module.weight.tolist(), module.bias.tolist(), (size + 2 * padding - kernel) // stride + 1

    def terms(out, top, left):
        for channel, taps in enumerate(weight[out]):
            for row, line in enumerate(taps, top * stride - padding):
                for column, w in enumerate(line, left * stride - padding):
                    if 0 <= row < size and 0 <= column < size:
                        yield x[(channel * size + row) * size + column].times(w)

    where = ((out, top, left) for out in range(len(weight)) for top in range(places) for left in range(places))
    return [total(terms(*place), bias[place[0]]) for place in where]


def added(a, b, factor=1.0):
    """a + factor b."""
    return [total((first, second.times(factor))) for first, second in zip(a, b, strict=True)]


def pooled(drawing, name, x, channels, size):
    """Maxima of windows of 3, 2 apart, padded by 1: max(a, b) = b + relu(a - b), rows first, then columns."""
    places = (size + 1) // 2
    taps = [_places(at, size) for at in range(places)]
    where = [(c, r, s) for c in range(channels) for r in range(places) for s in range(size)]
    rows = [[x[(c * size + taps[r][tap]) * size + s] for c, r, s in where] for tap in range(3)]
    x = _largest(drawing, (f"{name}#1", f"{name}#2"), *rows)
    where = [(c, r, s) for c in range(channels) for r in range(places) for s in range(places)]
    columns = [[x[(c * places + r) * size + taps[s][tap]] for c, r, s in where] for tap in range(3)]
    return _largest(drawing, (f"{name}#3", f"{name}#4"), *columns)


def _places(at, size):
    """What a window holds: where it leaves the map, its first position inside again."""
    found = range(2 * at - 1, 2 * at + 2)
    return [place if 0 <= place < size else max(found[0], 0) for place in found]


def _largest(drawing, names, a, b, c):
    for name, other in zip(names, (b, c), strict=True):
        a = added(other, drawing.fires(name, added(a, other, -1.0)))
    return a


class Dense(nn.Module):
    """Two hidden layers."""

    shape, circuits = (5,), None

    def __init__(self, activation):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 9), nn.Linear(9, 7), nn.Linear(7, 3)
        self.activation = activation

    def forward(self, x):
        return self.last(self.activation(self.second(self.activation(self.first(x)))))

    def drawn(self, g):
        name = self.activation.__name__
        x = g.fires(f"{name}#1", dense(self.first, g.image))
        return dense(self.last, g.fires(f"{name}#2", dense(self.second, x)))


class Convolutions(nn.Module):
    """Padding, strides, and a skip around the second convolution, if asked for."""

    shape, circuits = (2, 6, 6), None

    def __init__(self, activation, skip=False):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(27, 4)
        self.activation, self.skip = activation, skip

    def forward(self, x):
        x = self.activation(self.first(x))
        y = self.second(x) + x if self.skip else self.second(x)
        return self.last(self.activation(y).flatten(1))

    def drawn(self, g):
        name = self.activation.__name__
        x = g.fires(f"{name}#1", convolved(self.first, g.image, 6))
        y = convolved(self.second, x, 3)
        return dense(self.last, g.fires(f"{name}#2", added(y, x) if self.skip else y))


class Pooled(nn.Module):
    """Maxima of neurons."""

    shape, circuits = (2, 5, 5), {"max": "neurons"}

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(27, 4)

    def forward(self, x):
        return self.last(F.max_pool2d(F.relu(self.first(x)), 3, 2, 1).flatten(1))

    def drawn(self, g):
        x = g.fires("relu", convolved(self.first, g.image, 5))
        return dense(self.last, pooled(g, "max_pool2d", x, 3, 5))


class Gated(nn.Module):
    """x * sigmoid(g(x)): the sigmoid gates x, or a smaller x the sigmoid; neurons for f(x) = x carry the product on."""

    shape, circuits = (5,), {"product": "gated"}

    def __init__(self, before):
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(5, before), nn.Linear(before, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = F.tanh(self.first(x))
        return self.last(x * F.sigmoid(self.gate(x)))

    def drawn(self, g):
        x = g.fires("tanh", dense(self.first, g.image))
        late = g.fires("sigmoid", dense(self.gate, x))
        product = g.gated(late, x) if len(x) == len(late) else g.gated(x * len(late), late)
        return dense(self.last, g.fires("mul", product))


NETWORKS = {
    "dense relu": lambda: Dense(F.relu),
    "dense silu": lambda: Dense(F.silu),
    "conv relu": lambda: Convolutions(F.relu),
    "conv silu": lambda: Convolutions(F.silu),
    "skip": lambda: Convolutions(F.relu, skip=True),
    "skip silu": lambda: Convolutions(F.silu, skip=True),
    "max": Pooled,
    "gated by the later": lambda: Gated(6),
    "gated by the smaller": lambda: Gated(1),
}


def written_out(model, neurons, image):
    """(The network for one image; its layers' names)."""
    drawing = Drawing(neurons, image)
    return drawing.net(model.drawn(drawing)), drawing.names


@cache
def converted(name):
    """(The converted network, images, the `Net` of each, the layers' names).

    Where no maxima need one grid, each channel has a shift, a scale and a gain of its own.
    """
    torch.manual_seed(1)
    model = NETWORKS[name]().double().eval()
    x, images = torch.randn(48, *model.shape).double(), 12 if len(model.shape) == 1 else 3
    given = None if name.endswith("silu") else x
    snn = convert(model, x[:1], given, K=6, circuits=model.circuits, effort="quick")
    if not isinstance(model, Pooled):
        snn = snn.with_neurons({site: _by_channel(neuron, snn, site) for site, neuron in snn.neurons.items()})
    nets, names = zip(*(written_out(model, snn.neurons, image) for image in x[:images]), strict=True)
    return snn, x[:images], nets, names[0]


def _by_channel(neuron, snn, site):
    shift, scale, gain = torch.rand(3, snn.structure.shape_at(site)[1], dtype=torch.float64)
    return neuron.replace(shift=shift - 0.25, scale=scale + 0.5, gain=gain + 0.5)
