"""Models by name from timm and torchvision, with their own preprocessing."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from torch import nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.extras import require
from fewspikes.images import Preprocessing
from fewspikes.models.fetching import ask_url, cached_or_asked, fetching
from fewspikes.models.names import did_you_mean

Found = tuple[nn.Module, Preprocessing | None]

# torchvision builds these otherwise when it gives them its weights than when it does not; a file of weights needs the
# former. `init_weights` only spares a slow initialisation that warns about its own future.
_AS_TRAINED = {name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")}


def from_timm(name: str, pretrained: bool) -> Found:
    """Build timm's model `name` in eval mode, trained or not.

    Raises:
        FewSpikesError: timm is missing, has no such model or no weights for it, or the weights cannot be fetched.
    """
    timm = require("timm", f"timm:{name}")
    name = require("timm.models", f"timm:{name}").get_deprecated_models().get(name) or name
    _check_timm_name(timm, name)
    if pretrained:
        with fetching(f"timm:{name}"):
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=_cached_file(timm, name))
    else:
        model = timm.create_model(name, pretrained=False)
    return model.eval(), own_preprocessing(lambda: Preprocessing.from_timm(model))


def from_torchvision(name: str, pretrained: bool) -> Found:
    """Build torchvision's model `name` in eval mode, trained (its default weights) or not.

    Raises:
        FewSpikesError: torchvision is missing, has no such model, or the weights cannot be fetched.
    """
    models = require("torchvision.models", f"torchvision:{name}")
    known = [known for known in models.list_models() if not known.startswith("quantized_")]
    if name not in known:
        raise FewSpikesError(f"torchvision has no float model {said(name)}{did_you_mean(name, known)}")
    if pretrained:
        weights = models.get_model_weights(name).DEFAULT
        with fetching(f"torchvision:{name}"):
            ask_url(weights.url)
            model = models.get_model(name, weights=weights)
    else:
        model = models.get_model(name, weights=None, **_untrained_options(models, name))
    return model.eval(), own_preprocessing(lambda: Preprocessing.from_torchvision(name))


def _check_timm_name(timm: Any, name: str) -> None:
    try:
        if timm.is_model(name):
            timm.get_pretrained_cfg(name)
            return
    except RuntimeError:  # the architecture is known, the tag after the dot is not
        pass
    names = {*timm.list_models(), *timm.list_pretrained()}
    raise FewSpikesError(f"timm has no model {said(name)}{did_you_mean(name, names)}")


def _cached_file(timm: Any, name: str) -> dict[str, str] | None:
    """Where the trained weights are already, as timm's configuration wants it; raises if they cannot be had."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise FewSpikesError(f"timm has no trained weights for {name}; give them with --weights FILE.safetensors")
    if not config.hf_hub_id:
        ask_url(config.url)
        return None
    file = cached_or_asked(config.hf_hub_id, config.hf_hub_filename)
    return None if file is None or config.custom_load else {"file": str(file)}


def _untrained_options(models: Any, name: str) -> dict[str, Any]:
    options: dict[str, Any] = dict(_AS_TRAINED.get(name, {}))
    if "weights_backbone" in signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # its default is a download
    return options


def own_preprocessing(find: Callable[[], Preprocessing]) -> Preprocessing | None:
    """What is found, or None and a warning that says why."""
    try:
        return find()
    except FewSpikesError as error:
        warn(str(error))
        return None
