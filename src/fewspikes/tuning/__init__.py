"""What makes a converted network better: repairs per channel, budgets of steps and spikes, and learning the code."""

from fewspikes.tuning.distil import distil
from fewspikes.tuning.repair import Repair, repair

__all__ = ["Repair", "distil", "repair"]
