"""A small tokenizer of words and pieces, sentences for it, and folders that transformers saved."""

from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "The cat sat on the mat.",
    "A dog ran through the park.",
    "Few spikes are enough for a neuron.",
    "Neurons send spikes to other neurons.",
    "The park has a cat, a dog and a mat.",
    "Spikes!",
    "One sentence may be a good deal longer than all of the other sentences are.",
    "A neuron sat on the other dog.",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@cache
def tokenizer():
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    pad, unknown, first, last = SPECIAL
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, unk_token=unknown, cls_token=first, sep_token=last, model_max_length=32
    )


def saved(kind: str, folder: Path, **settings: object) -> Path:
    """A folder with a tiny network of transformers, random weights, and the tokenizer."""
    words = tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = getattr(transformers, settings.pop("config", "BertConfig"))(
        vocab_size=len(words), pad_token_id=0, max_position_embeddings=32, **sizes, **settings
    )
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
