"""fewspikes: any trained PyTorch network as a spiking network of FS-neurons (Stöckl and Maass 2021)."""

from fewspikes.convert import convert
from fewspikes.errors import FewSpikesError, FewSpikesWarning
from fewspikes.evaluation import EvaluationReport, evaluate
from fewspikes.fitting import FitResult, fit
from fewspikes.integers import IntegerNetwork, to_integer
from fewspikes.kernels import FSNeuron, apply
from fewspikes.metrics import Counts, count
from fewspikes.neuron import decode, encode
from fewspikes.parameters import FSParameters, published, relu_parameters
from fewspikes.saving import load, save
from fewspikes.tuning import distil

__version__ = "0.1.0"
__all__ = [
    "Counts",
    "EvaluationReport",
    "FSNeuron",
    "FSParameters",
    "FewSpikesError",
    "FewSpikesWarning",
    "FitResult",
    "IntegerNetwork",
    "apply",
    "convert",
    "count",
    "decode",
    "distil",
    "encode",
    "evaluate",
    "fit",
    "load",
    "published",
    "relu_parameters",
    "save",
    "to_integer",
]
