"""Convolutions, linear maps and max pools of whole numbers, exact: by 8-bit kernels where they prove so here."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LARGEST = 1 << 24  # float32 holds every whole number below it
_PROBE = 4  # images of random codes that show whether oneDNN is exact here


class MaxPool(nn.Module):
    """The largest code in each window, uint8 like the codes.

    Args:
        settings: as of torch's max_pool2d: kernel, and as many of stride, padding, dilation and ceil_mode as are given.
        engine: "auto" or "reference" (by way of float32).
    """

    def __init__(self, settings: Sequence[Any], engine: str = "auto") -> None:
        super().__init__()
        defaults = (settings[0], settings[0], [0, 0], [1, 1], False)
        stride = settings[1:2] if len(settings) > 1 and settings[1] else defaults[1:2]  # an empty stride is the kernel
        self.settings = (settings[0], *stride, *settings[2:], *defaults[max(len(settings), 2) :])
        self.fast = False
        if engine == "auto":
            codes = torch.randint(0, 256, (2, 3, 23, 23), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
            try:  # torch's own kernel for bytes in channels-last refuses more than 127 of them an image
                self.fast = torch.equal(self._by_bytes(codes), self(codes))
            except (RuntimeError, AttributeError, NotImplementedError):
                self.fast = False

    def forward(self, codes: Tensor) -> Tensor:
        """codes: uint8, [batch, channels, height, width]."""
        return self._by_bytes(codes) if self.fast else F.max_pool2d(codes.float(), *self.settings).to(torch.uint8)

    def _by_bytes(self, codes: Tensor) -> Tensor:
        codes = codes.contiguous(memory_format=torch.channels_last)
        return torch.ops.quantized.max_pool2d(codes, *self.settings)  # type: ignore[no-any-return]


class Product(nn.Module):
    """Integer codes up to `largest` in, their exact product with integer weights out, as float32 without a bias.

    Args:
        weight: int8, [out, in / groups, ...]: two dimensions for a linear map, four for a convolution.
        settings: stride, padding and dilation (two numbers each) and groups of a convolution.
        engine: "auto" or "reference" (float64); as an attribute "onednn" or "reference".
    """

    weight: Tensor

    def __init__(self, weight: Tensor, largest: int, settings: tuple[Any, ...] = (), engine: str = "auto") -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.settings, self.engine, self._packed = settings, "reference", None
        if engine == "auto":
            self._try_onednn(largest)

    def forward(self, codes: Tensor) -> Tensor:
        """codes: uint8, [batch, in, ...]."""
        if self.engine == "onednn":
            return self._by_onednn(codes)
        exact, weight = codes.double(), self.weight.double()
        return (F.conv2d(exact, weight, None, *self.settings) if self.settings else F.linear(exact, weight)).float()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle takes over: oneDNN's own form of the weights is made again."""
        return {**self.__dict__, "_packed": None}

    def fits(self, largest: int) -> bool:
        """Whether no sum can leave the whole numbers that float32 holds."""
        return int(self.weight.long().abs().flatten(1).sum(1).max()) * largest < _LARGEST

    def _try_onednn(self, largest: int) -> None:
        """Without the right instructions sums may saturate at 16 bits: believe oneDNN once it was seen to be exact."""
        groups = self.settings[3] if self.settings else 1
        shape = (_PROBE, self.weight.shape[1] * groups) + ((9, 9) if self.settings else ())
        extremes = torch.full(shape, largest, dtype=torch.uint8)
        random = torch.randint(0, largest + 1, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        exact = [self(codes) for codes in (extremes, random)]
        try:
            self.engine = "onednn"
            if all(torch.equal(self(codes), wanted) for codes, wanted in zip((extremes, random), exact, strict=True)):
                return
        except (RuntimeError, AttributeError, NotImplementedError):  # no such operator in this torch, or not for this
            pass
        self.engine, self._packed = "reference", None

    def _by_onednn(self, codes: Tensor) -> Tensor:
        out = len(self.weight)
        ones, zeros = torch.ones(out), torch.zeros(out, dtype=torch.int32)
        ends: tuple[Any, ...] = (None, 1.0, 0, torch.float32, "none", [], "")
        if not self.settings:
            if self._packed is None:
                self._packed = torch.ops.onednn.qlinear_prepack(self.weight, list(codes.shape))
            return torch.ops.onednn.qlinear_pointwise(codes, 1.0, 0, self._packed, ones, zeros, *ends)  # type: ignore[no-any-return]
        stride, padding, dilation, groups = self.settings
        if self._packed is None:
            pack = torch.ops.onednn.qconv_prepack
            self._packed = pack(self.weight, ones, 1.0, 0, stride, padding, dilation, groups, list(codes.shape))
        codes = codes.contiguous(memory_format=torch.channels_last)
        convolve = torch.ops.onednn.qconv2d_pointwise
        places = (stride, padding, dilation, groups)
        return convolve(codes, 1.0, 0, self._packed, ones, zeros, None, *places, *ends[1:])  # type: ignore[no-any-return]
