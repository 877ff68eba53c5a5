"""`perturb`: a network with faulty spikes, synapses or neurons."""

from collections.abc import Mapping
from typing import Any

from fewspikes.base.errors import FewSpikesError
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.faults import Faults


def perturb(snn: SpikingNetwork, faults: Faults | Mapping[str, Any] | None = None, **settings: Any) -> SpikingNetwork:
    """A network in which spikes get lost or come late, and thresholds, weights and neurons are not what they should be.

    Which ones depends on the seed, the site, the time step of its loop, the image's position, the step and the neuron
    alone, so the network and `simulate` have the same faults, on every machine. Images are counted from the first of
    each call; `evaluate` counts them from the first of all. Calibration, activations and the ANN (`as_ann`) are those
    of the clean network.

    Args:
        snn: the converted network; it stays as it is.
        faults: what goes wrong, or the same as a dict.
        settings: those of `Faults` by name, in place of `faults`: lost, late, spurious, threshold_noise, weight_noise,
            stuck, each, at, stuck_at, seed.

    Raises:
        FewSpikesError: a setting that is unknown or out of range, both ways at once, or a network with faults already.

    >>> import torch, fewspikes as fs
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1)).eval()
    >>> deaf = perturb(fs.convert(net, torch.zeros(1, 2)), lost=1.0)
    >>> torch.equal(deaf(torch.ones(1, 2))[0], net[2].bias)
    True
    """
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(f"perturb needs a converted network; got {type(snn).__name__}")
    if faults is not None and settings:
        raise FewSpikesError(f"give faults, or settings by name ({', '.join(settings)}), not both")
    snn.check_clean("perturb")
    chosen = faults if isinstance(faults, Faults) else Faults.from_json(settings if faults is None else faults)
    return snn.with_faults(chosen)
