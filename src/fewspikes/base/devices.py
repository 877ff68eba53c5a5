"""Where to compute, by name."""

import torch

from fewspikes.base.errors import FewSpikesError


def find_device(name: str) -> torch.device:
    """The device by name (cpu, cuda, cuda:1, ...), if this machine has it.

    Raises:
        FewSpikesError: no such device here.
    """
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise FewSpikesError(f"no device {name!r} here ({str(error).splitlines()[0]}); use --device cpu") from None
    return found
