"""`FaultyNeuron`: a layer some of whose spikes, thresholds and neurons go wrong."""

from math import inf, prod
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.moments import Moment, moment
from fewspikes.neuron.chance import bits, happening, happens, key, noisy
from fewspikes.neuron.faults import Faults
from fewspikes.neuron.firing import Firing
from fewspikes.neuron.layer import FSNeuron, count_outside
from fewspikes.neuron.recurrence import TriangleSpike, spike_train
from fewspikes.neuron.tracing import check_tracing


class Images(Protocol):
    """The axis of the images in what a layer computes; an image has `places` along it."""

    @property
    def axis(self) -> int:
        """Which it is."""

    @property
    def places(self) -> int:
        """How many positions one image has along it."""

    def back(self, x: Tensor) -> Tensor:
        """The images from the front to their places along the axis."""


class FaultyNeuron(FSNeuron):
    """A layer with faults.

    Args:
        healthy: the layer without.
        faults: what goes wrong.
        name: of its site, for which faults are drawn.
        images: the axis of the images; None where it is not known, which is an error once it runs.
    """

    def __init__(self, healthy: FSNeuron, faults: Faults, name: str, images: Images | None) -> None:
        super().__init__(healthy.code, axis=healthy.axis, **healthy.by_channel)
        self.faults, self.name, self.images = faults, name, images

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """y = g r (c + sum over t of d[t] (spikes heard in step t)).

        Raises:
            FewSpikesError: a tracer or compiler, or faults that only `simulate` can have.
        """
        check_tracing()
        if torch.compiler.is_compiling():
            raise FewSpikesError("a network with faults is not compiled; run it as it is, or compile the clean one")
        self.faults.check_engine("fast")
        when = moment()
        if x.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad):
            return self._in_steps(x, when)
        x = self.gate(x)
        _, h, d, offset = self.parameters_for(x)
        thresholds = (self.threshold(x, t, when) for t in range(self.code.K))
        y, before = offset.expand_as(x), None
        spikes = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
        for t, z in enumerate(spike_train(x, thresholds, h, TriangleSpike.apply)):
            y = y + d[t] * self.heard(z, before, t, when)
            spikes += z.detach().to(torch.uint8)
            before = z
        self._tell(x, spikes)
        return self.ungate(torch.where(x.isnan(), x, y))

    def _in_steps(self, x: Tensor, when: Moment) -> Tensor:
        """Where no gradient is wanted: each step in one pass over the membranes."""
        firing = Firing(self, x.detach(), when)
        gated = firing.v.clone()
        y, spikes = firing.offset.expand_as(gated).clone(), torch.zeros(gated.shape, dtype=torch.uint8)
        d = firing.d.tolist()
        for t in range(self.code.K):
            z = firing.fire(t)
            y.add_(firing.heard(t, z).to(y.dtype), alpha=d[t])
            spikes.add_(z.view(torch.uint8))
        self._tell(gated, spikes)
        return self.ungate(torch.where(gated.isnan(), gated, y))

    def _tell(self, x: Tensor, spikes: Tensor) -> None:
        for observe in tuple(self.spike_hooks):
            observe(x.detach(), spikes)
        for tally in tuple(self.count_hooks):
            tally(int(spikes.sum(dtype=torch.int64)), count_outside(x.detach(), self.code.domain))

    def threshold(self, x: Tensor, t: int, when: Moment) -> Tensor:
        """T[t] (1 + s n) of each neuron; one that is stuck has it below or above all that there is."""
        faults, T = self.faults, super().threshold(x, t, when)
        if faults.threshold_noise:
            drawn = (
                self._once("thresholds", x, when, t)
                if faults.each == "network"
                else self._drawn("thresholds", x, t, when)
            )
            T = noisy(T, faults.threshold_noise, drawn)
        if faults.stuck:
            is_stuck = happens(self._once("stuck", x, when), faults.stuck)
            T = torch.where(is_stuck, T.new_tensor(inf if faults.stuck_at == "silence" else -inf), T)
        return T

    def heard(self, z: Tensor, before: Tensor | None, t: int, when: Moment) -> Tensor:
        """How many spikes the receivers hear in step t: 0, 1, or 2 where a late one comes with another."""
        late, spurious = self.faults.late, self.faults.spurious
        if z.dtype == torch.bool and not late:
            found = self._arriving(z, t, when)
            return found | (self._happens("spurious", spurious, z, t, when) & ~z) if spurious else found
        sent = z.to(torch.uint8) if z.dtype == torch.bool else z
        found = self._arriving(sent, t, when)
        if late:
            found = found * ~self._happens("late", late, z, t, when)
        if spurious:
            found = found + (1 - sent) * self._happens("spurious", spurious, z, t, when)
        if late and before is not None:
            delayed = before.to(sent.dtype) * self._happens("late", late, z, t - 1, when)
            found = found + self._arriving(delayed, t - 1, when)
        return found

    def _arriving(self, sent: Tensor, t: int, when: Moment) -> Tensor:
        """Those of the spikes sent in step t that are not lost at the axon."""
        if not self.faults.lost or self.faults.lost_at_synapses:
            return sent
        kept = ~self._happens("lost", self.faults.lost, sent, t, when)
        return sent & kept if sent.dtype == torch.bool else sent * kept

    def _happens(self, kind: str, probability: float, like: Tensor, t: int, when: Moment) -> Tensor:
        axis, start, counts = self._chances(kind, like, t, when)
        return self._placed(happening(start, *counts, probability=probability, device=like.device), like, axis)

    def _drawn(self, kind: str, like: Tensor, t: int, when: Moment) -> Tensor:
        """Bits for each neuron and image of one step."""
        axis, start, counts = self._chances(kind, like, t, when)
        return self._placed(bits(start, *counts, device=like.device), like, axis)

    def _chances(self, kind: str, like: Tensor, t: int, when: Moment) -> tuple[Images, int, tuple[range, range]]:
        """What is drawn from in one step: the axis of the images, a key, and the images and neurons by number."""
        axis = self._axis(when)
        count = like.shape[axis.axis] // axis.places
        start = key(self.faults.seed, kind, self.name, when.time, t)
        return axis, start, (range(when.first, when.first + count), self._neurons(like, axis))

    def _once(self, kind: str, like: Tensor, when: Moment, *parts: int) -> Tensor:
        """Bits for each neuron, the same for all images."""
        axis = self._axis(when)
        count = like.shape[axis.axis] // axis.places
        drawn = bits(key(self.faults.seed, kind, self.name, *parts), self._neurons(like, axis), device=like.device)
        return self._placed(drawn.expand(count, -1), like, axis)

    def _axis(self, when: Moment) -> Images:
        found: Images | None = when.images.get(self.name, self.images)
        if found is None:
            raise FewSpikesError(f"no faults can be drawn at site {self.name}: it is not known where each image is")
        return found

    @staticmethod
    def _neurons(like: Tensor, axis: Images) -> range:
        return range(prod((*like.shape[: axis.axis], axis.places, *like.shape[axis.axis + 1 :])))

    @staticmethod
    def _placed(drawn: Tensor, like: Tensor, axis: Images) -> Tensor:
        sizes = (*like.shape[: axis.axis], axis.places, *like.shape[axis.axis + 1 :])
        return axis.back(drawn.reshape(len(drawn), *sizes))

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"{super().extra_repr()}, {self.faults}"
