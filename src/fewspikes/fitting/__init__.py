"""An activation and a number of steps become the parameters of an FS-neuron."""

from fewspikes.fitting.bounds import largest_error
from fewspikes.fitting.fitting import fit
from fewspikes.fitting.layer_fit import fit_site
from fewspikes.fitting.relu import least_error_relu
from fewspikes.fitting.result import FitResult, measure
from fewspikes.neuron.known_codes import shipped

__all__ = ["FitResult", "fit", "fit_site", "largest_error", "least_error_relu", "measure", "shipped"]
