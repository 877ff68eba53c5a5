"""Calls of the public functions and of the command line with arguments that nobody expects."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import fewspikes as fs
from attacks.damage import Random, pick
from attacks.files import MODEL, SMALL, network, png
from fewspikes.cli import main
from fewspikes.images import Preprocessing, loader, open_images, read_image

_NUMBERS = (0, -1, 3, 25, 1 << 63, 10**400, -(10**5000), 1e308, 1e-320, -0.0, float("nan"), float("inf"), -float("inf"))
_SHORT = (0, -1, True, -0.0, float("nan"), float("inf"), 10**400, "1", [], (), object(), 1e-320)
_WORDS = ("", "x" * 5000, "a\0b", "\ud800", "two\nlines", "uniform", "1", "nan")
_OTHERS = (None, True, b"\xff", (), [], {}, [None], {"a": 1}, [float("nan")] * 4, np.array([]), object(), range(3), int)
_PATHS = ("/proc/self/mem", "/proc/1/x/y", "/dev/null/x", "/", ".", "x" * 5000, "a\0b", "", b"x", None, 3)


def _tensors() -> tuple[Any, ...]:
    """What stands in the place of images or of gate inputs."""
    x = torch.randn(8, 2, 4, 4)
    return (
        x[:0],
        x[:, :1],
        x.half(),
        x.double(),
        x.long(),
        x.bool(),
        x + float("nan"),
        x * float("inf"),
        x * 1e38,
        x.to("meta"),
        x.to_sparse(),
        x.to(torch.complex64),
        x[0, 0, 0, 0],
        x.expand(1, 8, 2, 4, 4),
        x[:1].expand(8, -1, -1, -1),
        torch.nested.nested_tensor([x[0], x[1]]),
        x.numpy(),
        [x, x[:, :, :3]],
        [(x, torch.full((8,), 2**62))],
        {"x": x},
        iter([x]),
    )


class Caller:
    """A function with good arguments, some of which are replaced.

    Args:
        name: of what is called.
        function: called with the arguments.
        arguments: good ones, by name.
        extremes: by name, what stands in their place; names without get any number, word or other object.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        extremes: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> None:
        self.name, self.function, self.arguments, self.extremes = name, function, arguments, extremes or {}
        self.how = ""

    def once(self, random: Random) -> str:
        """Call it with one or two arguments replaced; "result" where it returns."""
        given = dict(self.arguments)
        for _ in range(int(random.integers(1, 3))):
            name = pick(random, sorted(given))
            values = self.extremes.get(name) or pick(random, (_NUMBERS, _WORDS, _OTHERS))
            given[name] = pick(random, values)
        self.how = f"{self.name}({', '.join(f'{k}={_shown(v)}' for k, v in given.items())})"[:600]
        self.function(**given)
        return "result"


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"<{value.dtype} {value.layout} {'nested' if value.is_nested else tuple(value.shape)}>"
    try:
        return repr(value)[:60]
    except ValueError:  # a number of too many digits
        return "<huge>"


class Commands:
    """The command line."""

    name = "command line"

    def __init__(self, folder: Path) -> None:
        self.how, self.folder = "", folder
        here = {"NET": folder / "net.fs", "DATA": folder / "data", "OUT": folder / "out.fs", "JSON": folder / "p.json"}
        self.here = {name: str(path) for name, path in here.items()}
        model = f"{folder / 'model.py'}:build"
        (folder / "model.py").write_text(
            "import torch\n\ndef build():\n    torch.manual_seed(0)\n    return torch.nn.Sequential("
            "torch.nn.Conv2d(3, 2, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(3)).eval()\n"
        )
        pixels = {"--mean": "0.5,0.5,0.5", "--std": "0.25,0.25,0.25", "--size": "16"}
        data = {"--data": "DATA", "--limit": "3", "--batch-size": "2", "--seed": "1", "--split": "test"}
        self.commands: list[tuple[list[str], dict[str, str]]] = [
            (["fit", "silu"], {"-K": "4", "--effort": "quick", "--seed": "1", "-o": "JSON", "--spike-price": "0.1"}),
            (["fit", "silu"], {"-K": "4", "--effort": "quick", "--max-spikes": "1", "--inputs": "0,1"}),
            (["fit", "relu"], {"-K": "4", "--alpha": "3", "--rounding": "down", "--method": "closed"}),
            (["convert", model], {**pixels, "-K": "3", "--alpha": "2", "-o": "OUT", "--device": "cpu", "--seed": "0"}),
            (["convert", model], {**pixels, **data, "-K": "3", "-o": "OUT", "--workers": "0"}),
            (["convert", model], {**pixels, **data, "--max-steps": "3", "--circuits": "max=digital"}),
            (["evaluate", "NET"], {**data, "--workers": "0"}),
            (["evaluate", "NET"], {**data, **pixels, "--device": "cpu"}),
        ]

    def once(self, random: Random) -> str:
        """One command with one or two values replaced; "result" where its exit code is 0."""
        words, options = pick(random, self.commands)
        given = dict(options)
        for _ in range(int(random.integers(1, 3))):
            given[pick(random, sorted(given))] = pick(random, _ON_THE_LINE)
        if random.random() < 0.1:
            words = [words[0], pick(random, _ON_THE_LINE)]
        typed = [self.here.get(word, word) for word in [*words, *(w for pair in given.items() for w in pair)]]
        self.how = " ".join(word[:60].replace(str(self.folder), "DIR") for word in ["fewspikes", *typed])
        code, said = _run(typed)
        lines = said.strip().splitlines()
        if code == 0:
            return "result"
        if (
            code != 2
            or len(lines) < 1
            or not lines[-1].startswith("error: ")
            or any(not line.startswith(("warning: ", "error: ")) for line in lines)
        ):
            raise AssertionError(f"exit code {code}, {len(lines)} lines: {' | '.join(lines)[-250:]}")
        raise fs.FewSpikesError(lines[-1])


_ON_THE_LINE = (
    *("-1", "0", "nan", "inf", "-inf", "1e9", "1e308", "9223372036854775808", "9" * 400, "1000000", "", "x" * 5000),
    *("3,4,5,6", ",", "two\nlines", "/proc/1/x", "/dev/null", "/", "NET", "DATA", "--help-me", "ü", "0.5", "cuda:99"),
)


def _run(words: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command, in this process."""
    said = io.StringIO()
    code: Any = 0
    typed = mock.patch.object(sys, "argv", ["fewspikes", *words])
    with typed, contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as left:
            code = left.code
    return int(code or 0), said.getvalue()


def _callers(folder: Path) -> Iterator[Any]:
    snn, images = network()
    silu, x, tensors = fs.published("silu"), torch.randn(8, 4), _tensors()
    fs.save(snn, folder / "net.fs", SMALL.to_json())
    fs.Calibration(0, {}).save(folder / "c.json")
    place = folder / "data/test"
    for label in "abc":
        (place / label).mkdir(parents=True)
        for i in range(2):
            (place / label / f"{i}.png").write_bytes(png(20, 20 + i))
    code = {"T": [2.0, 1.0], "h": [2.0, 1.0], "d": [2.0, 1.0], "offset": 0.0, "domain": (0.0, 4.0), "provenance": {}}
    inputs, paths, own = {"x": tensors}, {"path": _PATHS}, torch.ones(4)
    yield Caller("relu_parameters", fs.relu_parameters, {"K": 4, "alpha": 2.0, "rounding": "down", "cap": None})
    yield Caller("FSParameters", fs.FSParameters, code)
    yield Caller("quantize", silu.quantize, {"bits": 8, "low": -8.0, "high": 8.0, "endpoint": False, "scale": 1.0})
    yield Caller("Grid", fs.Grid, {"bits": 8, "low": -8.0, "high": 8.0, "scale": 1.0})
    yield Caller("Codes", fs.Codes, {"K": 4, "alpha": 2.0, "rounding": "down", "spike_price": 0.0, "effort": "quick"})
    yield Caller("Budget", fs.Budget, {"drop": 1.0, "steps": 8, "spikes": 1.0})
    channels = {"shift": own, "scale": own, "axis": 1, "gain": own}
    vectors = dict.fromkeys(("shift", "scale", "gain"), tensors)
    yield Caller("FSNeuron", lambda **given: fs.FSNeuron(silu, **given)(x), channels, vectors)
    yield Caller("apply", lambda x, engine: fs.apply(x, silu, engine), {"x": x, "engine": "auto"}, inputs)
    yield Caller("encode", lambda x: fs.decode(fs.encode(x, silu), silu), {"x": x}, inputs)
    fitted = {"target": "silu", "K": 3, "domain": (-4.0, 4.0), "seed": 0, "max_spikes": None, "effort": "quick"}
    fitted |= {"spike_price": 0.0, "inputs": "uniform", "method": None}
    yield Caller("fit", fs.fit, fitted)
    yield Caller("published", fs.published, {"activation": "silu"})
    example = {"example_inputs": images[:1], "K": 3, "alpha": None, "seed": 0, "spike_price": None, "effort": "quick"}
    yield Caller("convert", lambda **g: fs.convert(MODEL, **g), example, {"example_inputs": tensors})
    minutes = {"distil": _SHORT, "minutes": _SHORT, "steps": (*_SHORT, 3)}  # a long time would be a fair wish
    on = {"images": images, "K": 3, "max_steps": None, "max_spikes": None, "distil": None, "repair": None}
    yield Caller("convert on", lambda **g: fs.convert(MODEL, images[:1], **g), on, minutes | {"images": tensors})
    yield Caller("call", lambda x: snn(x), {"x": images}, inputs)
    yield Caller("evaluate", lambda x: fs.evaluate(snn, x), {"x": [(images, torch.zeros(64).long())]}, inputs)
    learn = {"loader": images, "steps": 2, "minutes": None, "spike_price": 0.0, "seed": 0, "checkpoint": None}
    places = {"loader": tensors, "checkpoint": _PATHS}
    yield Caller("distil", lambda **g: fs.distil(snn, **g), learn, minutes | places)
    front = {"images": images, "K": (3,), "seed": 0, "file": None}
    yield Caller(
        "frontier", lambda **g: fs.frontier(MODEL, images[:1], **g), front, {"images": tensors, "file": _PATHS}
    )
    yield Caller("to_integer", lambda engine: fs.to_integer(snn, engine), {"engine": "auto"})
    saved = {"path": folder / "again.fs", "preprocessing": {}}
    yield Caller("save", lambda **given: fs.save(snn, **given), saved, paths)
    for name, load in (("load", fs.load), ("FSParameters.load", fs.FSParameters.load), ("read_image", read_image)):
        yield Caller(name, load, {"path": folder / "net.fs"}, {"path": (*_PATHS, folder, folder / "net.fs")})
    yield Caller("FSParameters.save", silu.save, {"path": folder / "p.json"}, paths)
    yield Caller("Frontier.load", fs.Frontier.load, {"path": folder / "c.json"}, paths)
    yield Caller("Calibration.load", fs.Calibration.load, {"path": folder / "c.json"}, paths)
    yield Caller("Calibration", fs.Calibration, {"images": 1, "sites": {}})
    pixels = {"size": (16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": 18, "interpolation": "bicubic"}
    yield Caller("Preprocessing", lambda **g: Preprocessing(**g).transform(), pixels)
    data = {"folder": folder / "data", "split": "test", "classes": 3, "limit": 2, "seed": 0}
    yield Caller("open_images", lambda **g: open_images(preprocessing=SMALL, **g)[0], data, {"folder": _PATHS})
    found = open_images(folder / "data", "test", SMALL, 3)
    batches = {"batch_size": 2, "workers": 0, "skip_damaged": False}
    yield Caller("loader", lambda **given: next(iter(loader(found, **given))), batches)
    for _ in range(6):
        yield Commands(folder)


@contextlib.contextmanager
def attackers(folder: Path) -> Iterator[list[Any]]:
    """Every function, and the command line, ready to be called."""
    yield list(_callers(folder))
