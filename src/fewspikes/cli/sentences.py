"""What --text gives a command: batches of tokens, and what the network's file keeps of how they are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.models.loading import LoadedModel
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.texts import Tokens, check_vocabulary, read_labels, read_sentences, tokenizer_of

Text = Annotated[Path | None, typer.Option(metavar="FILE", help="Sentences in place of pictures: UTF-8, one a line.")]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of --text: a class number a line, for a network that classifies.")
]
Length = Annotated[
    int | None, typer.Option(min=1, help="Tokens of every sentence, --text. Default: of the longest in the file.")
]
Tokenizer = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A tokenizer's folder, for --text. Default: that of hf:FOLDER."),
]


@dataclass(frozen=True)
class Read:
    """The sentences of a file as batches of at most so many, and how they became tokens."""

    tokens: Tokens
    batches: list[Any]

    def example(self, device: torch.device) -> dict[str, Tensor]:
        """The first sentence."""
        first = self.batches[0]
        named = first[0] if isinstance(first, tuple) else first
        return {name: value[:1].to(device) for name, value in named.items()}


@dataclass(frozen=True)
class Asked:
    """What a command line asks for of sentences.

    Attributes:
        text, labels: the files.
        limit: a random subset of so many sentences, drawn with `seed`.
        size: sentences a batch.
    """

    text: Path
    labels: Path | None
    limit: int | None
    seed: int
    size: int

    def for_model(self, loaded: LoadedModel, spec: str, tokenizer: str | None, length: int | None) -> Read:
        """For a model that is to be converted.

        Raises:
            FewSpikesError: no tokenizer is known, or it does not fit the model or its tables.
        """
        sentences, labels = self._read()
        place = tokenizer or (spec.removeprefix("hf:") if spec.startswith("hf:") else None)
        if place is None:
            raise FewSpikesError(f"{loaded.name} does not say how sentences become tokens; give --tokenizer FOLDER")
        tokens = Tokens.of(tokenizer_of(place), loaded.model, sentences, length)
        read = Read(tokens, tokens.batches(sentences, self.size, labels))
        check_vocabulary(loaded.model, tokens, read.batches)
        return read

    def for_network(self, snn: SpikingNetwork, name: str) -> Read:
        """For a network that was converted with --text.

        Raises:
            FewSpikesError: it was not.
        """
        if not takes_sentences(snn):
            raise FewSpikesError(f"{name} holds no tokenizer; convert the model with --text FILE, and give -o")
        sentences, labels = self._read()
        tokens = Tokens.from_json(snn.preprocessing or {})
        return Read(tokens, tokens.batches(sentences, self.size, labels))

    def _read(self) -> tuple[list[str], list[int] | None]:
        require("tokenizers", "--text", extra="text")
        sentences = read_sentences(self.text)
        labels = None if self.labels is None else read_labels(self.labels, len(sentences))
        if self.limit is None or self.limit >= len(sentences):
            return sentences, labels
        order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(self.seed))
        kept = sorted(order[: self.limit].tolist())
        return _of(sentences, kept), None if labels is None else _of(labels, kept)


def asked(
    text: Path | None, labels: Path | None, limit: int | None, seed: int, size: int, others: dict[str, Any]
) -> Asked | None:
    """None without --text.

    Args:
        text, labels, limit, seed, size: as of `Asked`.
        others: options that do not go with --text, by name, None where they were not given.

    Raises:
        FewSpikesError: one of them was given, or --labels without --text.
    """
    if text is None:
        if labels is not None:
            raise FewSpikesError("--labels are those of --text FILE; give it, too. Pictures lie in folders by class")
        return None
    other = next((name for name, value in others.items() if value is not None), None)
    if other is not None:
        raise FewSpikesError(f"{other} does not go with --text: a network takes pictures or sentences; give one")
    return Asked(text, labels, limit, seed, size)


def takes_sentences(snn: SpikingNetwork) -> bool:
    """Whether a network carries a tokenizer."""
    return "tokenizer" in (snn.preprocessing or {})


def _of(items: Sequence[Any], kept: Sequence[int]) -> list[Any]:
    return [items[i] for i in kept]
