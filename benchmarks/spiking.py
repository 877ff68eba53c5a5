"""Forty networks of every kind with everything in them made of spikes: the output's error, and what it costs.

    python benchmarks/spiking.py -o docs/results/spiking.json

Random weights, random inputs. A deep network of random weights may be chaotic: a small error in front becomes a large
one at its end. So each row gives beside the spiking network's error that of the ANN itself in half precision.

Codes are fitted quickly; with --again those of an error above 0.1 are fitted once more, with more effort.

Each network has a process of its own, a time limit and a memory limit. What is measured is written at once beside the
output, one line a network; the same command goes on after the last of them, and --anew measures again.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "survey"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from library import LIBRARIES, cases
from measuring import Options
from processes import Limits, Row, Work, finished
from spiked import spiked

from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from kinds import KINDS

FAMILIES = {
    "CNN": (
        "torchvision:vgg11_bn",
        "torchvision:resnet18",
        "torchvision:shufflenet_v2_x0_5",
        "torchvision:mobilenet_v2",
        "torchvision:mobilenet_v3_small",
        "torchvision:efficientnet_b0",
        "torchvision:regnet_y_400mf",
        "timm:ghostnetv2_100",
        "timm:starnet_s050",
        "timm:resnet50_gn",
    ),
    "detection": (
        "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn_backbone",
        "torchvision:retinanet_resnet50_fpn_backbone",
    ),
    "segmentation": ("torchvision:lraspp_mobilenet_v3_large", "transformers:segformer"),
    "video": ("torchvision:r3d_18",),
    "ViT": (
        "timm:vit_tiny_patch16_224",
        "timm:deit_tiny_patch16_224",
        "timm:convit_tiny",
        "timm:eva02_tiny_patch14_224",
        "transformers:clip_vision",
    ),
    "Swin": ("torchvision:swin_t", "torchvision:swin_v2_t"),
    "MaxViT": ("timm:maxvit_pico_rw_256",),
    "hybrid": (
        "timm:levit_128s",
        "timm:efficientvit_b0",
        "timm:mobilevit_xxs",
        "timm:edgenext_xx_small",
        "timm:xcit_nano_12_p16_224",
        "timm:pvt_v2_b0",
    ),
    "ConvNeXt": ("timm:convnext_atto", "timm:convnextv2_atto"),
    "Mixer": ("timm:mixer_s32_224", "timm:gmlp_ti16_224", "timm:poolformer_s12"),
    "BERT": ("transformers:bert_base_model_raw_output", "transformers:distilbert"),
    "GPT-2": ("transformers:gpt2",),
    "Llama": ("transformers:llama",),
    "T5": ("transformers:t5_encoder",),
    "Whisper": ("transformers:whisper_encoder",),
    "wav2vec2": ("transformers:wav2vec2",),
    "Mamba": ("transformers:mamba",),
    "recurrent": ("kinds:lstm", "kinds:gru"),
}
_CALIBRATED = 32  # images at least
_LARGE = 0.1  # an error that more effort is for


def main() -> None:
    """Measure what is wanted and not yet known, and write all that is known."""
    arguments = _parser().parse_args()
    options = Options(arguments.circuits, arguments.K, arguments.images, arguments.effort, arguments.seed)
    aside = arguments.output.with_suffix(".lines.jsonl")
    said, known = _known(aside)
    if said not in ({}, asdict(options)):
        sys.exit(f"error: {aside} is of other options ({said}); remove it, or give another -o")
    work = _work(replace(options, effort="normal") if arguments.again else options, arguments.only)
    large = {name for name, row in known.items() if (row.get("error") or 0.0) > _LARGE and row["effort"] != "normal"}
    done = set(known) - (large if arguments.again else set())
    jobs = [(name, one) for name, one in work.items() if arguments.anew or name not in done]
    limits = Limits(arguments.limit_seconds, arguments.limit_mib)
    aside.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("a") as lines:
        if not said:
            lines.write(json.dumps(asdict(options)) + "\n")
        started = time.perf_counter()
        packages = [import_module(name) for name in LIBRARIES if find_spec(name) is not None]
        for count, (name, row) in enumerate(finished(jobs, arguments.jobs, limits), 1):
            lines.write(json.dumps({"name": name, **row}) + "\n")
            lines.flush()
            left = (time.perf_counter() - started) / count * (len(jobs) - count) / 60
            print(f"{count}/{len(jobs)} {name} {_line(row)} ({left:.0f} min left)", file=sys.stderr, flush=True)
    _, known = _known(aside)
    rows = [known[name] for name in _names() if name in known]
    about = {"name": "spiking", "command": "python benchmarks/spiking.py", "limits": asdict(limits)}
    write_json(
        arguments.output, {**about, "options": asdict(options), "rows": rows, "conditions": conditions(*packages)}
    )


def _known(aside: Path) -> tuple[Row, dict[str, Row]]:
    """The options of an earlier run and the rows that it wrote, by name; the last of each network."""
    if not aside.is_file():
        return {}, {}
    options, *rows = [json.loads(line) for line in aside.read_text().splitlines()]
    return options, {row["name"]: row for row in rows}


def _names() -> dict[str, str]:
    """The family of each network."""
    return {name: family for family, names in FAMILIES.items() for name in names}


def _work(options: Options, patterns: list[str]) -> dict[str, Work]:
    """What is to do, by name; a pattern also finds networks that are in no table."""
    every = {case.key: case for case in cases()} | {f"kinds:{kind.name}": kind for kind in KINDS}
    families = _names()
    wanted = [name for name in every if any(fnmatch(name, one) for one in patterns)] if patterns else [*families]
    if not wanted:
        sys.exit(f"error: none is called {' or '.join(patterns)}; names are like {next(iter(families))}, * is anything")
    return {
        name: partial(spiked, every[name].build, every[name].inputs, options, families.get(name, "")) for name in wanted
    }


def _line(row: Row) -> str:
    """A row in words."""
    keys = ("error", "error_float16", "error_bfloat16", "spikes_per_neuron")
    numbers = ", ".join(f"{key} {row[key]:.3g}" for key in keys if row.get(key) is not None)
    why = row.get("why", "")[:160] or ", ".join(row.get("left_digital", ()))
    return f"{row['status']} {row['seconds_in_all']:.0f} s: {numbers}{'; ' if why else ''}{why}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/spiking.json"))
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="timm:resnet*; may be repeated")
    parser.add_argument("--again", action="store_true", help="networks of a large error, with effort normal")
    parser.add_argument("--anew", action="store_true", help="measure also what is known already")
    parser.add_argument("--circuits", default="gated")
    parser.add_argument("-K", type=int, default=Options.K, help="time steps of each site")
    parser.add_argument("--images", type=int, default=_CALIBRATED, help="to calibrate on")
    parser.add_argument("--effort", default=Options.effort, help="of the fits")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of weights and images")
    parser.add_argument("--jobs", type=int, default=1, help="networks at once")
    parser.add_argument("--limit-seconds", type=float, default=900.0, help="for each network")
    parser.add_argument("--limit-mib", type=int, default=8192, help="memory of each process")
    return parser


if __name__ == "__main__":
    main()
