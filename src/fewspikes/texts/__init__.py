"""Sentences for networks: files with one a line, and the tokens that a tokenizer makes of them."""

from fewspikes.texts.sentences import read_labels, read_sentences
from fewspikes.texts.tokens import Tokens, tokenizer_of
from fewspikes.texts.vocabulary import check_vocabulary

__all__ = ["Tokens", "check_vocabulary", "read_labels", "read_sentences", "tokenizer_of"]
