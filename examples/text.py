"""A network of sentences: converted, saved, and measured by the vectors that it gives.

The network is a tiny BERT with random weights and a tokenizer trained on ten sentences, written to a folder as
save_pretrained does: put your own folder in its place.

python examples/text.py
"""

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import fewspikes as fs
from fewspikes.measure.embedding import evaluate_embeddings
from fewspikes.models import SentenceEncoder, load_model
from fewspikes.texts import Tokens, tokenizer_of

NOUNS, VERBS = ("the cat", "a dog", "one neuron", "my friend", "the park"), ("sees", "sends spikes to")
SENTENCES = [f"{a} {verb} {b}" for verb in VERBS for a in NOUNS for b in NOUNS]


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        save_a_tiny_network(place)
        model = SentenceEncoder(load_model(f"hf:{place}").model).eval()  # the mean of the tokens' vectors
        tokens = Tokens.of(tokenizer_of(place), model, SENTENCES)
        seen, others = tokens.batches(SENTENCES[::2], 16), tokens.batches(SENTENCES[1::2], 16)
        snn = fs.convert(model, seen[0], seen, K=12, circuits="gated", repair=False)
        print(evaluate_embeddings(snn, others, model, name="a tiny BERT"))
        fs.save(snn, Path(place) / "bert.fs", tokens.to_json())
        again = fs.load(Path(place) / "bert.fs")
        words = Tokens.from_json(again.preprocessing).batch(["a dog sees my friend"])
        print("loaded network computes the same:", torch.equal(again(words), snn(words)))


def save_a_tiny_network(place: str) -> None:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=100, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)
    words.save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)).save_pretrained(place)


if __name__ == "__main__":
    main()
