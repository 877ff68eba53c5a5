"""Where to compute, by name."""

import torch

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import reason_of


def find_device(name: str) -> torch.device:
    """The device by name (cpu, cuda, cuda:1, ...), if this machine has it.

    Raises:
        FewSpikesError: no such device here.
    """
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise FewSpikesError(f"no device {said(name)} here ({reason_of(error)}); use --device cpu") from None
    return found
