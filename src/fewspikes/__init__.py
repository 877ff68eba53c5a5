"""fewspikes: any trained PyTorch network as a spiking network of FS-neurons (Stöckl and Maass 2021)."""

from fewspikes import rules
from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.base.version import __version__ as __version__
from fewspikes.conversion.conversion import convert
from fewspikes.conversion.distillation import distil
from fewspikes.conversion.pareto import frontier
from fewspikes.conversion.points import Frontier
from fewspikes.conversion.settings import Budget, Codes
from fewspikes.fitting import FitResult, fit
from fewspikes.hardware.integers import IntegerNetwork, to_integer
from fewspikes.measure.calibration import Calibration
from fewspikes.measure.counting import Counts, count
from fewspikes.measure.evaluation import EvaluationReport, evaluate
from fewspikes.network.file import load, save
from fewspikes.network.perturbation import perturb
from fewspikes.network.report import ConversionReport
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.faults import Faults
from fewspikes.neuron.grid import Grid
from fewspikes.neuron.kernels import apply
from fewspikes.neuron.known_codes import published, relu_parameters
from fewspikes.neuron.layer import FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import decode, encode
from fewspikes.simulation.recording import read_events
from fewspikes.simulation.simulation import Pipeline, simulate
from fewspikes.simulation.trace import Recording, Trace

__all__ = [
    "Budget",
    "Calibration",
    "Codes",
    "ConversionReport",
    "Counts",
    "EvaluationReport",
    "FSNeuron",
    "FSParameters",
    "Faults",
    "FewSpikesError",
    "FewSpikesWarning",
    "FitResult",
    "Frontier",
    "Grid",
    "IntegerNetwork",
    "Pipeline",
    "Recording",
    "SpikingNetwork",
    "Trace",
    "apply",
    "convert",
    "count",
    "decode",
    "distil",
    "encode",
    "evaluate",
    "fit",
    "frontier",
    "load",
    "perturb",
    "published",
    "read_events",
    "relu_parameters",
    "rules",
    "save",
    "simulate",
    "to_integer",
]
