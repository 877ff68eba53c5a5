"""An activation and a number of steps become the parameters of an FS-neuron."""

from fewspikes.fitting.bounds import largest_error
from fewspikes.fitting.closed_form import least_error_relu
from fewspikes.fitting.fit import fit
from fewspikes.fitting.result import FitResult, measure
from fewspikes.fitting.site import fit_site
from fewspikes.neuron.shipped import shipped

__all__ = ["FitResult", "fit", "fit_site", "largest_error", "least_error_relu", "measure", "shipped"]
