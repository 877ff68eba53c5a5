"""The library models of the survey: names and input sizes from models.tsv, weights random."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LIBRARIES = ("torchvision", "timm", "transformers")
_WHOLE = {"ssdlite": "ssdlite320_mobilenet_v3_large"}
_SENTENCE, _TOKENS = (10,), 50  # the size of an input of words, and how many words there are at least


@dataclass(frozen=True)
class Case:
    """A model of a library, and the sizes of its inputs without the batch."""

    library: str
    name: str
    shapes: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> str:
        """Its name in results."""
        return f"{self.library}:{self.name}"

    def build(self) -> nn.Module:
        """The model in eval mode, its weights drawn from torch's global generator."""
        return _BUILDERS[self.library](self.name, self.shapes[0]).eval()

    def inputs(self, n: int) -> tuple[Tensor, ...]:
        """A random batch of `n`: normal; or numbers of words, and behind them which of them count."""
        if self.library == "transformers" and self.shapes[0] == _SENTENCE:
            words, *masks = (torch.randint(1, _TOKENS, (n, *shape)) for shape in self.shapes)
            return words, *((torch.arange(mask.shape[1]) < mask[:, :1]).long() for mask in masks)
        return tuple(torch.randn(n, *shape) for shape in self.shapes)


def cases() -> list[Case]:
    """All models of the survey."""
    lines = (Path(__file__).parent / "models.tsv").read_text().splitlines()[1:]
    return [Case(library, name, _shapes(inputs)) for library, name, inputs in (line.split("\t") for line in lines)]


def _shapes(words: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(size) for size in word.split("x")) for word in words.split())


def _from_torchvision(name: str, shape: tuple[int, ...]) -> nn.Module:
    from torchvision.models import get_model

    base = name.removesuffix("_backbone").removesuffix("_whole")
    base = _WHOLE.get(base, base)
    about = {} if not _is_detector(base) else {"weights_backbone": None}
    if base in ("googlenet", "inception_v3"):
        about["init_weights"] = False
    model = get_model(base, weights=None, **about)
    return model.backbone if name.endswith("_backbone") else model  # type: ignore[no-any-return]


def _is_detector(name: str) -> bool:
    """Whether torchvision's function would fetch a trained backbone."""
    from torchvision.models import get_model_builder

    return "weights_backbone" in signature(get_model_builder(name)).parameters


def _from_timm(name: str, shape: tuple[int, ...]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, img_size=shape[-1])  # type: ignore[no-any-return]
    except TypeError:  # a network that takes any size
        return timm.create_model(name)  # type: ignore[no-any-return]


def _from_transformers(name: str, shape: tuple[int, ...]) -> nn.Module:
    import language

    return language.build(name)


_BUILDERS: dict[str, Callable[[str, Any], nn.Module]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "transformers": _from_transformers,
}
