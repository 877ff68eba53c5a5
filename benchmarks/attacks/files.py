"""Damaged and forged files of every kind that the library reads, and whether what loads is what was saved."""

import io
import json
import os
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

import fewspikes as fs
from attacks.damage import BYTES, Random, forged, other_name, pick, resealed, written
from fewspikes.base.seals import SEAL
from fewspikes.conversion.checkpoint import Checkpoint, restore
from fewspikes.conversion.distillation import learned
from fewspikes.conversion.trainer import Trainer
from fewspikes.fitting import cache
from fewspikes.graph.graph import sizes
from fewspikes.images import Preprocessing, open_images
from fewspikes.images.reading import decode_image
from fewspikes.measure.calibration import calibrate
from fewspikes.measure.deal import Images

SMALL = Preprocessing(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, resize=18)
_RUN = 1 << 22  # elements; a forged network with more is loaded and not run


class Kind:
    """A kind of file, with one whole example.

    Attributes:
        name: of the kind.
        path: where the example lies, and where damaged ones are written.
        whole: its bytes.
    """

    name = ""
    how = ""  # it was damaged last
    sealed = True  # whether it says itself that it was changed

    def __init__(self, path: Path) -> None:
        self.path = path
        self.make()
        self.whole = path.read_bytes()
        self.saved = self.read()

    def make(self) -> None:
        """Write the example."""
        raise NotImplementedError

    def read(self) -> Any:
        """What the library makes of the file."""
        raise NotImplementedError

    def same(self, found: Any) -> bool:
        """Whether that is what was saved."""
        return bool(found == self.saved)

    def forge(self, random: Random) -> tuple[str, bytes]:
        """The file with other fields, and how; without fields its bytes are damaged."""
        return self.damage(random)

    def damage(self, random: Random) -> tuple[str, bytes]:
        """The file with other bytes, and how."""
        content, ways = self.whole, []
        for _ in range(1 if random.random() < 0.8 else 2):
            way = pick(random, BYTES)
            content = way(content, random) if content else content
            ways.append(way.__name__)
        return "+".join(ways), content

    def is_sealed(self, content: bytes) -> bool:
        """Whether the file says that it has a checksum."""
        return self.sealed

    def once(self, random: Random) -> str:
        """Damage the file once and read it: "equal" or "loaded"."""
        self.how = "?"
        self.how, content = self.forge(random) if random.random() < 0.5 else self.damage(random)
        self.path.write_bytes(content)
        found = self.read()
        if self.same(found):
            return "equal"
        if self.is_sealed(content) and self.how != "forged and sealed":
            raise AssertionError("it loads, and is not what was saved")
        return "loaded"


class Json(Kind):
    """JSON with a checksum."""

    def forge(self, random: Random) -> tuple[str, bytes]:
        """Fields changed, half of them sealed again."""
        content = forged(json.loads(self.whole), random)
        seals = random.random() < 0.5
        text = written(resealed(content) if seals else content, random)
        return "forged and sealed" if seals else "forged", text.encode("utf-8", "surrogatepass")


class Parameters(Json):
    """The parameters of a neuron."""

    name = "parameters"

    def is_sealed(self, content: bytes) -> bool:
        """Without a checksum they count as written by hand."""
        return SEAL.encode() in content

    def make(self) -> None:
        """The published SiLU."""
        fs.published("silu").save(self.path)

    def read(self) -> Any:
        """FSParameters, run as well."""
        found = fs.FSParameters.load(self.path)
        fs.apply(torch.linspace(-3, 3, 7), found)
        return found


class ByHand(Parameters):
    """The same without a checksum: what is written there counts."""

    name = "parameters by hand"
    sealed = False

    def make(self) -> None:
        """As somebody would write them."""
        content = fs.published("silu").to_json()
        self.path.write_text(json.dumps({name: value for name, value in content.items() if name != SEAL}, indent=1))

    def forge(self, random: Random) -> tuple[str, bytes]:
        """Fields changed."""
        return "forged", written(forged(json.loads(self.whole), random), random).encode("utf-8", "surrogatepass")


class Calibrated(Json):
    """A calibration."""

    name = "calibration"

    def make(self) -> None:
        """Of two sites."""
        snn, images = network()
        calibrate(snn, [((images,), None)]).save(self.path)

    def read(self) -> Any:
        """Its images, and its histograms as they are written."""
        found = fs.Calibration.load(self.path)
        for histogram in found.sites.values():
            histogram.moments(np.array([0.0, 0.5]))
        return found.images, {name: histogram.to_json() for name, histogram in found.sites.items()}


class Fitted(Json):
    """A fit in the cache."""

    name = "cache"

    def make(self) -> None:
        """The published SiLU under the name of a fit."""
        os.environ["FEWSPIKES_CACHE"] = str(self.path.parent.parent)
        cache.keep(self.path.stem, fs.published("silu"))

    def read(self) -> Any:
        """The fit, or what stands for none."""
        cache.forget()
        found = cache.look_up(self.path.stem, "silu", 16)
        if found is None:
            raise fs.FewSpikesError("no fit")
        return found


class Frontiers(Json):
    """A frontier."""

    name = "frontier"

    def make(self) -> None:
        """Of two choices."""
        _, images = network()
        fs.frontier(MODEL, images[:1], images, K=(3,), file=self.path)

    def read(self) -> Any:
        """The points and their table."""
        found = fs.Frontier.load(self.path)
        return found, str(found)


class Tensors(Kind):
    """Tensors with sealed JSON."""

    def forge(self, random: Random) -> tuple[str, bytes]:
        """Fields of the JSON or a tensor changed, half of them sealed again; or the header of the file."""
        if random.random() < 0.2:
            return "forged", self._other_header(random)
        tensors = safetensors.torch.load(self.whole)
        size = int.from_bytes(self.whole[:8], "little")
        ((entry, text),) = json.loads(self.whole[8 : 8 + size])["__metadata__"].items()
        content = json.loads(text)
        if random.random() < 0.3:
            tensors = _other_tensors(tensors, random)
        else:
            content = forged(content, random)
        seals = random.random() < 0.7
        described = written(resealed(content, tensors) if seals else content, random)
        how = "forged and sealed" if seals else "forged"
        return how, safetensors.torch.save(tensors, {entry: described.encode("utf-8", "replace").decode()})

    def _other_header(self, random: Random) -> bytes:
        size = int.from_bytes(self.whole[:8], "little")
        header = written(forged(json.loads(self.whole[8 : 8 + size]), random), random).encode("utf-8", "replace")
        length = pick(random, (len(header), len(header), len(header), size, 0, 1 << 40, (1 << 64) - 1))
        return struct.pack("<Q", length) + header + self.whole[8 + size :]


def _other_tensors(tensors: dict[str, Tensor], random: Random) -> dict[str, Tensor]:
    """One tensor of another value, shape or kind, under another name, or not there."""
    name = pick(random, sorted(tensors))
    old, others = tensors[name], {other: tensor for other, tensor in tensors.items() if other != name}
    changed = (
        old + 1,
        old.flatten()[:1].clone(),
        old[None].clone(),
        torch.full_like(old, float("nan")) if old.is_floating_point() else old,
        old.double(),
        old.to(torch.bool),
        old.to(torch.complex64),
        torch.empty(0),
        torch.zeros(()),
        torch.full_like(old, 3e38) if old.is_floating_point() else old,
    )
    way = int(random.integers(len(changed) + 2))
    if way == len(changed):
        return others
    name = other_name(random) if way > len(changed) else name
    return others | {name: pick(random, changed) if way > len(changed) else changed[way]}


class Network(Tensors):
    """A converted network."""

    name = "network"

    def make(self) -> None:
        """Convolution, ReLU with a shift per channel, an expression, a SiLU."""
        snn, _ = network()
        fs.save(snn, self.path, {"size": [4, 4]})

    def read(self) -> Any:
        """Its outputs, counts, report and what it carries."""
        with torch.inference_mode():
            snn = fs.load(self.path)
        said = str(snn.report)
        elements = sum(sizes(node.shape, 3).numel() for node in snn.graph if node.shape is not None)
        outputs, counted = None, None
        if elements < _RUN:
            x = [torch.linspace(-2, 2, 3 * int(np.prod(s.shape))).view(3, *s.shape).to(s.dtype) for s in snn.inputs]
            with fs.count(snn) as counts:
                outputs = snn(*x)
            counted = counts.by_site
        return outputs, counted, said, snn.report, snn.preprocessing, snn.settings

    def same(self, found: Any) -> bool:
        """Bit for bit."""
        tensors = isinstance(found[0], Tensor) and torch.equal(found[0], self.saved[0])
        return tensors and found[1:] == self.saved[1:]


class Distilled(Tensors):
    """A checkpoint of distilling."""

    name = "checkpoint"

    def make(self) -> None:
        """After six stages."""
        snn, images = network()
        self.trainer = Trainer(snn, Images((images,)), Images((images[:8],)), snn.as_ann(), 0.0, 0)
        learned(self.trainer, None, 6, checkpoint=self.path)
        content, _ = _opened(self.path)
        self.run = content["run"]

    def read(self) -> Any:
        """Stages and what was learned at each."""
        done = Checkpoint(self.run)
        restore(self.path, self.trainer, done)
        return [stage.to_json() for stage in done.stages], done.learned, self.trainer.random.get_state()

    def same(self, found: Any) -> bool:
        """Bit for bit."""
        if found[0] != self.saved[0] or not torch.equal(found[2], self.saved[2]):
            return False
        pairs = zip(found[1], self.saved[1], strict=True)
        return all(a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a) for a, b in pairs)


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from fewspikes.base.tensors import read_tensors
    from fewspikes.conversion.checkpoint import _KIND

    return read_tensors(path, _KIND)


class Pictures(Kind):
    """An image. It has no checksum of ours: what can be decoded is one."""

    name = "image"
    sealed = False
    formats = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")

    def make(self) -> None:
        """A small one in each format."""
        picture = Image.linear_gradient("L").resize((24, 18)).convert("RGB")
        self.contents = []
        for format in self.formats:
            buffer = io.BytesIO()
            picture.save(buffer, format)
            self.contents.append(buffer.getvalue())
        self.path.write_bytes(self.contents[0])

    def read(self) -> Any:
        """The network's input."""
        with self.path.open("rb") as file:
            return SMALL.transform()(decode_image(file, lambda: "an image")).sum()

    def damage(self, random: Random) -> tuple[str, bytes]:
        """In one of the formats; a third of them with other sizes in the header."""
        self.whole = pick(random, self.contents)
        how, content = super().damage(random)
        if random.random() < 0.3:
            how, content = "forged", self._of_another_size(random)
        return how, content

    def _of_another_size(self, random: Random) -> bytes:
        kind = pick(random, ("PNG", "GIF", "TIFF", "BMP"))
        sides = (0, 1, 2, 255, 4000, 16_000, 65_535) + (
            (60_000, 1 << 30, (1 << 31) - 1, (1 << 32) - 1) * (kind == "PNG")
        )
        width, height = pick(random, sides), pick(random, sides)
        if kind == "PNG":
            return png(width, height)
        image = Image.new(pick(random, ("1", "L", "P")), (min(width, 16_000) or 1, min(height, 4000) or 1))
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG file that says it has this size, with a valid checksum and hardly any data."""
    from zlib import compress, crc32

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = compress(bytes(min((width // 8 + 2) * height, 1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class Shards(Kind):
    """A tar shard with images and labels."""

    name = "shard"
    sealed = False

    def make(self) -> None:
        """Three images, with labels of both kinds."""
        with tarfile.open(self.path, "w", format=tarfile.PAX_FORMAT) as tar:
            for i in range(3):
                label = {"a.json": json.dumps({"label": i, "x" * 120: "ü"}).encode()} if i else {"a.cls": b"0"}
                for name, content in {"a.png": png(8, 8 + i), **label}.items():
                    entry = tarfile.TarInfo(f"{i}/{'ü' * 60 * (i == 2)}{name}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))

    def read(self) -> Any:
        """Labels, and the inputs that can be made."""
        data = open_images(self.path.parent, "test", SMALL, 3)
        found = []
        for i in range(len(data)):
            with suppress(fs.FewSpikesError):
                found.append(data[i])
        return len(found)

    def forge(self, random: Random) -> tuple[str, bytes]:
        """Other lengths and kinds in a member's header, with a fitting checksum; or another label."""
        content = bytearray(self.whole)
        heads = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
        at = pick(random, heads)
        size = int(pick(random, (-1, -512, -1024, 0, 5, 1 << 20, 1 << 33, 1 << 62, 1 << 80)))
        if random.random() < 0.7:
            content[at + 124 : at + 136] = (size % (1 << 95) | 1 << 95).to_bytes(12, "big")
        else:
            content[at + 156 : at + 157] = pick(random, (b"x", b"g", b"L", b"K", b"S", b"1", b"5", b"\0", b"Z"))
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        return "forged", bytes(content)


class Rows(Kind):
    """A Parquet file with images and labels."""

    name = "parquet"
    sealed = False

    def make(self) -> None:
        """Three images in two row groups."""
        import pyarrow
        import pyarrow.parquet

        rows = [{"bytes": png(8, 8), "path": None} for _ in range(3)]
        images = pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
        table = pyarrow.table({"img": images, "label": pyarrow.array([0, 1, 2], pyarrow.int64())})
        pyarrow.parquet.write_table(table, self.path, row_group_size=2)

    def read(self) -> Any:
        """Labels, and the inputs that can be made."""
        return Shards.read(self)  # type: ignore[arg-type]


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.body, self.head = nn.Conv2d(2, 4, 3), nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.softsign(self.conv(x).relu().flatten(1))
        return self.head(nn.functional.silu(self.body(y)))


torch.manual_seed(0)
MODEL = _Model().eval()
_made: list[tuple[fs.SpikingNetwork, Tensor]] = []


def network() -> tuple[fs.SpikingNetwork, Tensor]:
    """A small converted network and the images that it was made on."""
    if not _made:
        images = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(1))
        _made.append((fs.convert(MODEL, images[:1], images, K=4), images))
    return _made[0]


KINDS: dict[str, tuple[Callable[[Path], Kind], str]] = {
    kind.name: (kind, file)
    for kind, file in (
        (Network, "net.fs"),
        (Parameters, "p.json"),
        (ByHand, "hand.json"),
        (Calibrated, "c.json"),
        (Fitted, f"fits/{'a' * 64}.json"),
        (Distilled, "run.safetensors"),
        (Frontiers, "f.json"),
        (Pictures, "image"),
        (Shards, "shards/test-0.tar"),
        (Rows, "rows/test-0.parquet"),
    )
}


@contextmanager
def attackers(folder: Path) -> Iterator[list[Kind]]:
    """One of each kind, ready to be damaged in this folder, which is emptied afterwards."""
    kinds = []
    for name, (kind, file) in KINDS.items():
        place = folder / name.replace(" ", "_") / file
        place.parent.mkdir(parents=True, exist_ok=True)
        kinds.append(kind(place))
    try:
        yield kinds
    finally:
        shutil.rmtree(folder, ignore_errors=True)
