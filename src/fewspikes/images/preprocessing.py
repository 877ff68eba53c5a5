"""From a photograph to a network's input: resize, crop, scale to 0..1, normalise. Said once, saved with the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, isclose, isfinite
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.base.files import reason_of
from fewspikes.images.reading import MOST_PIXELS, DamagedImageError, check_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_UNCROPPED = 384  # pixels from which on ConvNeXt's processor of transformers does not crop
_VERSION, _FIELDS = 1, ("size", "mean", "std", "resize", "interpolation")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the tensor that a network was trained on.

    Per channel, after resize and centre crop:  x = (pixel / 255 - mean) / std.

    Args:
        size: (height, width) of the tensor, in pixels.
        mean, std: one number for a grey input or three for a colour input, for pixels scaled to 0..1; std > 0.
        resize: the image's shorter side before the crop, or its exact (height, width), in pixels, no smaller than
            `size`; None for images that have `size` already.
        interpolation: "bicubic", "bilinear" or "nearest".

    Raises:
        FewSpikesError: a number out of range, or lists of different lengths.

    >>> Preprocessing(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, resize=256).resize
    256
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _pair("size", self.size))
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise FewSpikesError(
                f"mean and std must hold 1 number (grey) or 3 (colour) each; got {len(self.mean)} and {len(self.std)}"
            )
        if min(self.std) <= 0:
            raise FewSpikesError(f"std must be > 0; got {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise FewSpikesError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {checks.said(self.interpolation)}"
            )
        object.__setattr__(self, "resize", _checked_resize(self.resize, self.size))
        height, width = (self.resize,) * 2 if isinstance(self.resize, int) else self.resize or self.size
        if height * width > MOST_PIXELS:
            raise FewSpikesError(f"images of {height:,} x {width:,} pixels are too large; {MOST_PIXELS:,} at most")

    def transform(self) -> Callable[["Image"], Float[Tensor, "channels height width"]]:
        """A function from a PIL image to the network's input, float32.

        Raises:
            FewSpikesError: torchvision is missing; or, by the function, an image that does not have `size` where
                no `resize` is set, or whose pixels have more than 8 bits.
        """
        return _Transform(self)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"version": _VERSION, **fields}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """The reverse of `to_json`; raises FewSpikesError where something is missing or wrong."""
        version = content.get("version") if isinstance(content, Mapping) else None
        if version != _VERSION:
            raise FewSpikesError(f"preprocessing of version {version!r:.50}; this library reads {_VERSION}")
        missing = [name for name in _FIELDS if name not in content]
        if missing:
            raise FewSpikesError(f"preprocessing lacks {missing[0]!r}; wanted {', '.join(_FIELDS)}")
        return cls(*(content[name] for name in _FIELDS))

    @classmethod
    def from_timm(cls, model: nn.Module) -> "Preprocessing":
        """What timm applies to evaluate `model`, read from the model's own configuration.

        Raises:
            FewSpikesError: timm is missing, `model` is not timm's, or its recipe pads images.
        """
        timm_data = require("timm.data", "a timm model's preprocessing")
        if not hasattr(model, "pretrained_cfg"):
            raise FewSpikesError(f"{type(model).__name__} is no timm model; give size, mean and std yourself")
        config = timm_data.resolve_model_data_config(model)
        size, mode = _pair("size", config["input_size"][-2:]), config["crop_mode"]
        resize = tuple(floor(side / config["crop_pct"]) for side in size)
        if mode == "border" or (mode != "squash" and resize[0] != resize[1]):
            raise FewSpikesError(
                f"timm's {mode!r} crop to {size} has no equal here; give size, mean, std and resize yourself"
            )
        return cls(
            size, config["mean"], config["std"], resize if mode == "squash" else resize[0], config["interpolation"]
        )

    @classmethod
    def from_torchvision(cls, name: str) -> "Preprocessing":
        """What torchvision applies to evaluate the default weights of its classifier `name`.

        Raises:
            FewSpikesError: torchvision is missing, has no such model, or the model classifies no images.
        """
        models = require("torchvision.models", "a torchvision model's preprocessing")
        try:
            preset = models.get_model_weights(name).DEFAULT.transforms()
        except ValueError as error:
            raise FewSpikesError(f"torchvision has no weights for {checks.said(name)}: {reason_of(error)}") from None
        if type(preset).__name__ != "ImageClassification":
            raise FewSpikesError(
                f"torchvision's {name} is no image classifier but {type(preset).__name__}; "
                "give size, mean and std yourself"
            )
        height, width = preset.crop_size * 2 if len(preset.crop_size) == 1 else preset.crop_size
        resize = preset.resize_size[0] if len(preset.resize_size) == 1 else preset.resize_size
        return cls((height, width), preset.mean, preset.std, resize, preset.interpolation.value)

    @classmethod
    def from_transformers(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """What an image processor of transformers applies, from its preprocessor_config.json.

        Raises:
            FewSpikesError: it leaves the size of the images open, or does what has no equal here.
        """
        kind = content.get("image_processor_type", content.get("feature_extractor_type"))
        wanted = {"do_resize": True, "do_rescale": True, "rescale_offset": False, "do_pad": False}
        other = next((name for name, value in wanted.items() if content.get(name, value) is not value), None)
        factor, mode = content.get("rescale_factor", 1 / 255), _RESAMPLING.get(content.get("resample", 2))
        if other is None and (not isclose(factor, 1 / 255) or str(kind).startswith("Levit")):
            other = "how it scales"
        if other is not None or mode is None:
            other = other or "resample"
            raise FewSpikesError(
                f"{kind} of transformers has no equal here ({other}); give size, mean and std yourself"
            )
        size, resize = _of_processor(content)
        means, stds = content.get("image_mean"), content.get("image_std")
        if not content.get("do_normalize", True):
            means, stds = (0.0,) * 3, (1.0,) * 3
        return cls(size, _numbers("image_mean", means), _numbers("image_std", stds), resize, mode)


class _Transform:
    """A class, not a closure, so that a loader's worker processes can receive it."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        v2 = require("torchvision.transforms.v2", "preprocessing")
        self._wanted = preprocessing
        self._mode = "L" if len(preprocessing.mean) == 1 else "RGB"
        self._to_tensor = v2.PILToTensor()
        self._normalize = v2.Normalize(preprocessing.mean, preprocessing.std)
        self._fit = v2.Identity()
        if preprocessing.resize is not None:
            resize = v2.Resize(preprocessing.resize, v2.InterpolationMode(preprocessing.interpolation), antialias=True)
            self._fit = v2.Compose([resize, v2.CenterCrop(preprocessing.size)])

    def __call__(self, image: "Image") -> Tensor:
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise FewSpikesError(
                f"an image with more than 8 bits a pixel (mode {image.mode}); convert it to 8 bits first"
            )
        width, height = image.size
        if self._wanted.resize is None and (height, width) != self._wanted.size:
            raise FewSpikesError(
                f"an image of {height} x {width} pixels (height x width), where the network takes "
                f"{self._wanted.size[0]} x {self._wanted.size[1]} and no resize is set; set one (on the command "
                "line: --size), or resize the images"
            )
        if isinstance(self._wanted.resize, int):  # by the shorter side: the longer one may become anything
            check_pixels(*_resized(image.size, self._wanted.resize), lambda: "an image", "is resized to")
        pixels = self._to_tensor(self._fit(self._converted(image)))  # uint8 [C, H, W]
        # Divided, as timm and torchvision's presets do: v2.ToDtype multiplies by 1/255, which rounds otherwise.
        tensor: Tensor = self._normalize(pixels.float().div_(255))
        return tensor

    def _converted(self, image: "Image") -> "Image":
        try:
            if "transparency" in image.info:
                image = image.convert("RGBA")  # Pillow warns when a transparent palette goes to RGB at once
            return image.convert(self._mode)
        except (ValueError, TypeError, OSError) as error:  # a mode such as La, or a palette that does not fit
            raise DamagedImageError(
                f"an image of mode {image.mode} does not go to {self._mode} ({reason_of(error)}); convert it to "
                "8-bit RGB first"
            ) from None


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """The size whose shorter side is `short`."""
    sides = [side * short // min(size) for side in size]
    return sides[0], sides[1]


def _of_processor(content: Mapping[str, Any]) -> tuple[tuple[int, int], int | tuple[int, int]]:
    """The size of the images, and what they are resized to before the crop, as transformers says them."""
    resize = _sides(content.get("size"))
    if isinstance(resize, int) and content.get("crop_pct") is not None and resize < _UNCROPPED:
        return (resize, resize), int(resize / content["crop_pct"])
    if isinstance(resize, int) and content.get("crop_pct") is not None:
        return (resize, resize), (resize, resize)
    size = _sides(content.get("crop_size")) if content.get("do_center_crop") else resize
    if resize is None or size is None or isinstance(size, int):
        raise FewSpikesError(
            f"transformers' preprocessing does not say the one size of all images; got size {checks.said(resize)} and "
            f"crop_size {checks.said(content.get('crop_size'))}: give size, mean and std yourself"
        )
    return size, resize


def _sides(given: Any) -> int | tuple[int, int] | None:
    """(height, width), or the shorter side; None where it is neither."""
    if type(given) is int:
        return given, given
    if not isinstance(given, Mapping):
        return None
    if "height" in given and "width" in given:
        return _pair("size", (given["height"], given["width"]))
    return given["shortest_edge"] if set(given) == {"shortest_edge"} else None


def _pair(name: str, values: Any) -> tuple[int, int]:
    if not isinstance(values, Sequence) or len(values) != 2 or any(type(v) is not int or v < 1 for v in values):
        raise FewSpikesError(f"{name} must be two whole numbers >= 1, (height, width); got {checks.said(values)}")
    return values[0], values[1]


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise FewSpikesError(f"{name} must be a list of numbers; got {checks.said(values)}") from None
    if not all(isfinite(number) for number in numbers):
        raise FewSpikesError(f"{name} must be finite; got {numbers}")
    return numbers


def _checked_resize(resize: Any, size: tuple[int, int]) -> int | tuple[int, int] | None:
    if resize is None:
        return None
    sides = _pair("resize", (resize, resize) if type(resize) is int else resize)
    least = (max(size), max(size)) if type(resize) is int else size
    if sides[0] < least[0] or sides[1] < least[1]:
        raise FewSpikesError(f"resize {resize} is smaller than the crop {size}, which would pad; make it larger")
    return sides[0] if type(resize) is int else sides
