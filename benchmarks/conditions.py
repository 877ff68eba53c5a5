"""What a result was measured with, for the JSON beside it."""

import os
import platform
import subprocess
import time
from types import ModuleType
from typing import Any

import torch

import fewspikes as fs


def conditions(*packages: ModuleType) -> dict[str, Any]:
    """Date, commit, versions (of fewspikes, torch, Python and `packages`) and machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = {package.__name__: package.__version__ for package in (fs, torch, *packages)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "versions": versions | {"python": platform.python_version()},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
    }
