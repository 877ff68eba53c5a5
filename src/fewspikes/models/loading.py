"""`load_model`: a trained network from the words of a command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.images import Preprocessing
from fewspikes.models.cifar_resnet import CIFAR_PREPROCESSING, resnet8, resnet14, resnet20, resnet44, resnet50
from fewspikes.models.efficientnet_cifar import CIFAR_EFFICIENTNET_PREPROCESSING, cifar_efficientnet
from fewspikes.models.efficientnet_lite import LITE0_PREPROCESSING, efficientnet_lite0
from fewspikes.models.hugging_face import from_hugging_face
from fewspikes.models.libraries import Found, from_timm, from_torchvision
from fewspikes.models.names import did_you_mean
from fewspikes.models.sentences import SentenceEncoder
from fewspikes.models.user_file import call_user_function
from fewspikes.models.weights import load_weights

_RESNETS = (resnet8, resnet14, resnet20, resnet44, resnet50)
_CIFAR: dict[str, Callable[[], nn.Module]] = {build.__name__: build for build in (*_RESNETS, cifar_efficientnet)}
CIFAR_NETWORKS = tuple(_CIFAR)
_OURS = (*_CIFAR, "efficientnet_lite0")
_TRAINED = Path(__file__).parent / "trained"  # our own, NAME.safetensors
_FORMS = "timm:NAME, torchvision:NAME, hf:NAME, hf:FOLDER, fewspikes:NAME or path/to/file.py:function"


@dataclass(frozen=True)
class LoadedModel:
    """A network, how its inputs are made (None: unknown), and a short name for reports."""

    model: nn.Module
    preprocessing: Preprocessing | None
    name: str


def load_model(spec: str, weights: str | None = None, random: bool = False) -> LoadedModel:
    """Build a network and give it its weights.

    Args:
        spec: timm:NAME, torchvision:NAME, hf:NAME or hf:FOLDER (of transformers: from its hub, or what save_pretrained
            wrote), fewspikes:NAME (resnet8, resnet14, resnet20, resnet44, resnet50 and cifar_efficientnet for CIFAR,
            and efficientnet_lite0) or path/to/file.py:function, a function without arguments that returns the trained
            nn.Module. The last comes as it was made, the others in eval mode.
        weights: a file or a folder with exactly the network's tensors, see `load_weights`; None: the library's own
            trained weights.
        random: untrained weights, drawn from torch's global generator: good for counting neurons, not for accuracy.

    Raises:
        FewSpikesError: an unknown form or name, weights that do not fit or cannot be fetched, a missing package, or a
            function that fails.

    Warns:
        FewSpikesWarning: the model's own preprocessing is of a kind that has no equal here.

    >>> load_model("fewspikes:resnet8", random=True).preprocessing.size
    (32, 32)
    """
    if weights is not None and random:
        raise FewSpikesError("--weights and --random-weights exclude each other; give one")
    source, name = _split(spec)
    model, preprocessing = _build(source, name, pretrained=weights is None and not random, random=random)
    if weights is not None:
        load_weights(model.transformer if isinstance(model, SentenceEncoder) else model, weights)
    short = Path(name).name if source == "hf" else name
    return LoadedModel(model, preprocessing, short if source in _BUILDERS else f"{Path(source).name}:{name}")


def trained_weights(name: str) -> Path:
    """Where the library's own trained weights of a network lie, if it has them: a .safetensors file.

    Its metadata say how they were made: top1 on how many test images, recipe, command.
    """
    return _TRAINED / f"{name}.safetensors"


def _split(spec: str) -> tuple[str, str]:
    source, _, name = spec.partition(":")
    if source in _BUILDERS and name:
        return source, name
    file, _, function = spec.rpartition(":")  # the last colon, because a Windows path has one of its own
    if file.endswith(".py") and function:
        return file, function
    own = name or spec
    hint = f"; did you mean fewspikes:{own}?" if own in _OURS else did_you_mean(source, _BUILDERS)
    raise FewSpikesError(f"unknown model {said(spec)}; give {_FORMS}{hint}")


def _build(source: str, name: str, pretrained: bool, random: bool) -> Found:
    if source in _BUILDERS:
        return _BUILDERS[source](name, pretrained)
    if random:
        raise FewSpikesError(f"--random-weights does not go with {source}:{name}; its function chooses the weights")
    return call_user_function(Path(source), name), None


def _from_fewspikes(name: str, pretrained: bool) -> Found:
    if name == "efficientnet_lite0":
        return efficientnet_lite0(pretrained), LITE0_PREPROCESSING
    if name not in _CIFAR:
        raise FewSpikesError(
            f"fewspikes has no model {said(name)}; it has {', '.join(_OURS)}{did_you_mean(name, _OURS)}"
        )
    model = _CIFAR[name]().eval()
    trained = trained_weights(name)
    if pretrained and trained.is_file():
        load_weights(model, trained)
    elif pretrained:
        raise FewSpikesError(
            f"fewspikes:{name} comes without trained weights; give them with --weights FILE.safetensors, "
            "or count only with --random-weights"
        )
    return model, CIFAR_EFFICIENTNET_PREPROCESSING if name == "cifar_efficientnet" else CIFAR_PREPROCESSING


_BUILDERS: dict[str, Callable[[str, bool], Found]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "hf": from_hugging_face,
    "fewspikes": _from_fewspikes,
}
