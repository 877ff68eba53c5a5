"""Peak memory of a network and its spiking version, each in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.bench.network import laid_out
from fewspikes.models import load_model
from fewspikes.network.file import load, save
from fewspikes.network.spiking import SpikingNetwork

_PASSES = 3


def memory_row(spec: str, weights: str | None, random: bool, snn: SpikingNetwork, images: Tensor) -> dict[str, Any]:
    """Peak memory in MiB of a process that loads a network and runs a batch three times, counts on, and the ratio.

    Each process imports fewspikes. What is beyond the loaded network is the passes' own (`..._passes_mib`): the
    network's maps, and in the spiking network's first pass the compiled loops.

    Args:
        spec, weights, random: of the ANN, as for `load_model`.
        snn: its spiking version.
        images: the batch; only its shape matters.

    Raises:
        FewSpikesError: one of the processes failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.fs"
        save(snn, file)
        shape = list(images.shape)
        ann = _run({"model": [spec, weights, random], "shape": shape})
        spiking = _run({"file": str(file), "shape": shape})
    return {
        "batch": len(images),
        "ann_mib": ann[0],
        "snn_mib": spiking[0],
        "snn_over_ann": spiking[0] / ann[0],
        "ann_passes_mib": ann[0] - ann[1],
        "snn_passes_mib": spiking[0] - spiking[1],
    }


def _run(job: dict[str, Any]) -> tuple[float, float]:
    """Peak memory at the end, and before the first pass."""
    done = subprocess.run(
        [sys.executable, "-m", "fewspikes.bench.memory", json.dumps(job)], capture_output=True, text=True, check=False
    )
    try:
        before, after = done.stdout.split()[-2:]
        return float(after), float(before)
    except (IndexError, ValueError):
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise FewSpikesError(f"the process that measures memory failed: {reason[0]}") from None


def _main() -> None:
    from fewspikes.measure.counting import count

    job = json.loads(sys.argv[1])
    images = laid_out(torch.zeros(job["shape"]))
    network = laid_out(load(job["file"]) if "file" in job else load_model(*job["model"]).model)
    before = _peak()
    with torch.inference_mode():
        for _ in range(_PASSES):
            if isinstance(network, SpikingNetwork):
                with count(network):
                    network(images)
            else:
                network(images)
    sys.stdout.write(f"{before} {_peak()}\n")


def _peak() -> float:
    """Of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says there begins at the size of the process that started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    _main()
