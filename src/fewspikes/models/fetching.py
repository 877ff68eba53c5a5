"""Trained weights from the network, or a quick refusal: nobody should wait a minute to learn that there is none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torch import hub

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require

_SECONDS = 5.0  # a server that has not answered by then is not there


_REMEDY = "give them with --weights FILE.safetensors, or count only with --random-weights"


@contextmanager
def fetching(name: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Turn whatever goes wrong while weights are fetched into one line with the remedies.

    What libraries print meanwhile goes to stderr, because stdout is for results.

    Args:
        name: of the model.
        remedy: what to do without a network.

    Raises:
        FewSpikesError: the work inside failed.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except FewSpikesError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FewSpikesError(f"the trained weights of {name} could not be fetched ({reason}); {remedy}") from error


def ask_url(url: str) -> None:
    """Return at once if torch's cache has the file, or if the server answers; raise OSError if neither."""
    if (Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file():
        return
    try:
        urlopen(Request(url, method="HEAD"), timeout=_SECONDS).close()
    except HTTPError as error:
        if error.code >= 500:
            raise
        # The server is there; whether it has the file is for the download itself to say.


def cached_or_asked(hf_hub_id: str, filename: str | None) -> Path | None:
    """The file in Hugging Face's cache, or None if the hub answers; raises what its client raises if neither.

    Without this the client asks the hub before it looks at its cache, and asks six times for each file.
    """
    hub_client = require("huggingface_hub", f"fetching {hf_hub_id}")
    repository, _, revision = hf_hub_id.partition("@")
    names = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    for name in names:
        cached: Any = hub_client.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    ask_hub(hf_hub_id, names[0])
    return None


def ask_hub(hf_hub_id: str, filename: str) -> None:
    """Return at once if Hugging Face's hub answers; raise what its client raises if not."""
    hub_client = require("huggingface_hub", f"fetching {hf_hub_id}")
    repository, _, revision = hf_hub_id.partition("@")
    url = hub_client.hf_hub_url(repository, filename, revision=revision or None)
    require("huggingface_hub.utils", f"fetching {hf_hub_id}").get_session().head(url, timeout=_SECONDS)
