"""A tokenizer makes sentences into a network's inputs: all of one length, shorter ones padded, longer ones cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base import checks
from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.extras import require
from fewspikes.base.files import reason_of
from fewspikes.base.wording import counted

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"
MOST_TOKENS = 1 << 17  # of a sentence
_FIELDS = {IDS: "ids", MASK: "attention_mask", KINDS: "type_ids"}


@dataclass(frozen=True)
class Tokens:
    """How sentences become a network's inputs.

    Attributes:
        tokenizer: of the package tokenizers, as its JSON text, padding and length within.
        inputs: by each of the network's inputs, what it holds: input_ids, attention_mask or token_type_ids.
        length: of every sentence, in tokens.
    """

    tokenizer: str
    inputs: Mapping[str, str]
    length: int

    def __post_init__(self) -> None:
        checks.whole("length", self.length, 1, MOST_TOKENS)
        unknown = [kind for kind in self.inputs.values() if kind not in _FIELDS]
        if unknown or not self.inputs:
            raise FewSpikesError(f"a tokenizer makes {', '.join(_FIELDS)}; got {said(unknown)}")

    @cached_property
    def _encoder(self) -> Any:
        package = require("tokenizers", "text", extra="text")
        try:
            encoder = package.Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the package raises Exception itself
            raise FewSpikesError(f"this tokenizer cannot be read: {reason_of(error)}; convert again") from None
        return encoder

    def batch(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """The network's inputs for some sentences, int64 [sentences, length] each."""
        found = self._encoder.encode_batch(list(sentences))
        return {
            name: torch.tensor([getattr(one, _FIELDS[kind]) for one in found]) for name, kind in self.inputs.items()
        }

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(self._encoder.get_vocab_size())

    def cuts(self, sentence: str) -> bool:
        """Whether a sentence has more tokens than there is room for."""
        return bool(self._encoder.encode(sentence).overflowing)

    def batches(self, sentences: Sequence[str], size: int, labels: Sequence[int] | None = None) -> list[Any]:
        """The same in batches of at most `size`, each with its labels behind if there are some.

        Warns:
            FewSpikesWarning: sentences are cut, and how many.
        """
        cut = sum(map(self.cuts, sentences))
        if cut:
            said_of = "is longer" if cut == 1 else "are longer"
            end = "is cut there" if cut == 1 else "are cut there"
            of = counted(len(sentences), "sentence")
            warn(f"{cut:,} of {of} {said_of} than {counted(self.length, 'token')} and {end}")
        parts = [(self.batch(sentences[i : i + size]), i) for i in range(0, len(sentences), size)]
        if labels is None:
            return [part for part, _ in parts]
        return [(part, torch.tensor(labels[i : i + size])) for part, i in parts]

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return {"tokenizer": self.tokenizer, "inputs": dict(self.inputs), "length": self.length}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Tokens":
        """The reverse of `to_json`."""
        return cls(str(content["tokenizer"]), dict(content["inputs"]), int(content["length"]))

    @classmethod
    def of(cls, tokenizer: Any, model: nn.Module, sentences: Sequence[str], length: int | None = None) -> "Tokens":
        """For a model, with a tokenizer of transformers.

        Args:
            tokenizer: as from `tokenizer_of`.
            model: whose forward takes input_ids, or the tokens first and perhaps a mask behind them.
            sentences: the longest of them says the length where `length` does not.
            length: in tokens.

        Raises:
            FewSpikesError: a forward that takes something else, or more tokens than the model has places for.
        """
        package = require("tokenizers", "text", extra="text")
        encoder = package.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        encoder.no_padding()
        encoder.no_truncation()
        places = _places(tokenizer, model)
        longest = max((len(one.ids) for one in encoder.encode_batch(list(sentences))), default=1)
        if length is not None and length > places:
            raise FewSpikesError(f"the model has places for {places} tokens; got a length of {length}")
        chosen = min(max(longest, 1), places) if length is None else checks.whole("length", length, 1, MOST_TOKENS)
        pad = tokenizer.pad_token or tokenizer.eos_token or tokenizer.unk_token
        number = 0 if pad is None else encoder.token_to_id(pad) or 0
        added = encoder.num_special_tokens_to_add(False)
        if chosen <= added:
            raise FewSpikesError(f"the tokenizer adds {added} tokens to each; give a length of at least {added + 1}")
        encoder.enable_truncation(chosen)
        encoder.enable_padding(length=chosen, pad_id=number, pad_token=pad or "", direction=tokenizer.padding_side)
        return cls(encoder.to_str(), _inputs_of(model), chosen)


def tokenizer_of(place: str) -> Any:
    """The tokenizer in a folder that save_pretrained wrote, or of a name that transformers' cache has.

    Raises:
        FewSpikesError: transformers is missing, or there is no tokenizer, or one that runs in Python alone.
    """
    transformers = require("transformers", "text", extra="text")
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        found = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises nearly every class there is
        where = "in the folder" if Path(place).is_dir() else "on this machine for"
        raise FewSpikesError(
            f"no tokenizer {where} {place}: {reason_of(error)}; give a folder that a tokenizer's save_pretrained wrote "
            "with --tokenizer FOLDER"
        ) from None
    finally:
        logging.set_verbosity(before)
    if not hasattr(found, "backend_tokenizer"):
        raise FewSpikesError(f"the tokenizer of {place} has no tokenizer.json; save it again with its fast form")
    return found


def _places(tokenizer: Any, model: nn.Module) -> int:
    """The most tokens of a sentence that tokenizer and model take."""
    config = getattr(model, "config", None)
    given = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), MOST_TOKENS)
    return min(int(number) for number in given if isinstance(number, int) and number > 0)


def _inputs_of(model: nn.Module) -> dict[str, str]:
    """By each input that forward takes of a tokenizer, what it is."""
    free = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    wanted = {
        p.name: p.default is Parameter.empty for p in signature(model.forward).parameters.values() if p.kind not in free
    }
    if IDS in wanted:
        return {name: name for name in (IDS, MASK, KINDS) if name in wanted and (name != KINDS or wanted[name])}
    needed = [name for name, is_needed in wanted.items() if is_needed]
    if not 1 <= len(needed) <= 2:
        raise FewSpikesError(
            f"forward of {type(model).__name__} takes {', '.join(wanted) or 'nothing'}; for text it must take "
            f"{IDS} (and {MASK}), or tokens first and a mask behind them"
        )
    return dict(zip(needed, (IDS, MASK), strict=False))
