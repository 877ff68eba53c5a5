"""Models of transformers: by name from Hugging Face's hub, or from a folder that save_pretrained wrote."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.base.files import reason_of
from fewspikes.images import Preprocessing
from fewspikes.models.fetching import ask_hub, cached_or_asked, fetching
from fewspikes.models.libraries import Found, own_preprocessing
from fewspikes.models.sentences import with_pooling

_CONFIG, _IMAGES = "config.json", "preprocessor_config.json"
_OF_PATHS = ("/", ".", "~")  # first characters of no name
_SHOWN = 3  # names in a message
_REMEDY = f"give a folder with its {_CONFIG} and model.safetensors: hf:FOLDER"


def from_hugging_face(name: str, pretrained: bool) -> Found:
    """Build the model `name` of transformers in eval mode, in float32, trained or not.

    A folder of sentence-transformers gives a `SentenceEncoder`.

    Args:
        name: of a repository on the hub, or a folder.
        pretrained: whether it gets its trained weights, from safetensors alone. No code from a repository runs.

    Raises:
        FewSpikesError: transformers is missing, the folder lacks something, its files do not fit one another, or they
            cannot be fetched.
    """
    transformers = require("transformers", f"hf:{name}", extra="text")
    folder = Path(name) if Path(name).is_dir() else None
    if folder is None and (name[:1] in _OF_PATHS or name.count("/") > 1):
        raise FewSpikesError(f"no such folder {name}; {_REMEDY}, or hf:NAME of the hub")
    with _quiet(transformers):
        if folder is None:
            with fetching(f"hf:{name}", _REMEDY):
                return _from_hub(transformers, name, pretrained)
        _check_folder(folder, pretrained)
        try:
            return _built(transformers, str(folder), pretrained, offline=True)
        except FewSpikesError:
            raise
        except Exception as error:  # transformers and safetensors raise nearly every class there is
            raise FewSpikesError(f"transformers cannot build the model in {folder}: {reason_of(error)}") from error


def _check_folder(folder: Path, pretrained: bool) -> None:
    if not (folder / _CONFIG).is_file():
        raise FewSpikesError(f"{folder} has no {_CONFIG}; give a folder that save_pretrained wrote")
    if pretrained and not any(folder.glob("*.safetensors")):
        raise FewSpikesError(
            f"{folder} has no model.safetensors; give the weights with --weights PATH, or count only with "
            "--random-weights"
        )


def _from_hub(transformers: Any, name: str, pretrained: bool) -> Found:
    """What the cache has is taken from there, the rest from the hub, which is asked first whether it is there."""
    if cached_or_asked(name, _CONFIG) is not None:
        try:
            return _built(transformers, name, pretrained, offline=True)
        except OSError:  # some file of it is not in the cache
            ask_hub(name, _CONFIG)
    return _built(transformers, name, pretrained, offline=False)


def _built(transformers: Any, name: str, pretrained: bool, offline: bool) -> Found:
    where = {"trust_remote_code": False, "local_files_only": offline}
    config = transformers.AutoConfig.from_pretrained(name, **where)
    config.use_cache = False  # of a language model: it is no tensor
    kind = _class(transformers, config, name)
    model = _trained(kind, config, name, where) if pretrained else kind(config)
    model = model.float().eval()
    takes_pictures = model.main_input_name == "pixel_values"
    found = own_preprocessing(lambda: _preprocessing(name, offline)) if takes_pictures else None
    return with_pooling(model, Path(name)), found


def _class(transformers: Any, config: Any, name: str) -> Any:
    """The class that the configuration names, one of transformers' own; else the model without a head."""
    whole = transformers.MODEL_MAPPING.get(type(config), None)
    for wanted in config.architectures or ():
        own = sys.modules.get(getattr(whole, "__module__", ""))  # parts, as Whisper's encoder, are there alone
        found = getattr(transformers, str(wanted), getattr(own, str(wanted), None))
        if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
            raise FewSpikesError(f"hf:{name} is a {said(wanted)}, which this version of transformers does not have")
        return found
    return whole


def _trained(kind: Any, config: Any, name: str, where: Mapping[str, Any]) -> nn.Module:
    model, found = kind.from_pretrained(
        name,
        config=config,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **where,
    )
    shapes = [f"{key} {tuple(given)} for {tuple(own)}" for key, given, own in sorted(found["mismatched_keys"])]
    wrong = {"missing": found["missing_keys"], "left over": found["unexpected_keys"], "wrong shapes": shapes}
    if any(wrong.values()):
        words = ", ".join(f"{what} {_first(sorted(keys))}" for what, keys in wrong.items() if keys)
        raise FewSpikesError(f"the weights of hf:{name} do not fit {kind.__name__}: {words}; give those of this model")
    return model  # type: ignore[no-any-return]


def _preprocessing(name: str, offline: bool) -> Preprocessing:
    file = Path(name) / _IMAGES
    if not Path(name).is_dir():
        hub_client = require("huggingface_hub", f"hf:{name}", extra="text")
        try:
            file = Path(hub_client.hf_hub_download(name, _IMAGES, local_files_only=offline))
        except OSError:  # it has none, or it is not in the cache
            file = Path(_IMAGES)
    if not file.is_file():
        raise FewSpikesError(f"hf:{name} has no {_IMAGES}; give size, mean and std yourself")
    try:
        return Preprocessing.from_transformers(json.loads(file.read_text()))
    except FewSpikesError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FewSpikesError(f"{file} does not say how images become inputs: {reason_of(error)}") from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its log lines and bars; what matters comes as an error."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
