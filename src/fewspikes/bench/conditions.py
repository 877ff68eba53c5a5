"""What a result was measured with, for the JSON beside it."""

import os
import platform
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import fewspikes


def conditions(*packages: ModuleType) -> dict[str, Any]:
    """Date, commit, versions (of fewspikes, torch, Python and `packages`) and machine.

    The commit is None where fewspikes runs from no checkout.
    """
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        commit = ""
    versions = {package.__name__: package.__version__ for package in (fewspikes, torch, *packages)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or None,
        "versions": versions | {"python": platform.python_version()},
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _processor() -> str:
    """The kind of processor, with the vector instructions that torch finds."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
