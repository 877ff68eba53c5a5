"""Sentences in place of pictures: their files, their tokens, networks that give them vectors, and the command line."""

import json
import re
import shutil

import pytest
import torch
from scipy.stats import spearmanr

import fewspikes as fs
from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.cli.main import app
from fewspikes.measure.embedding import evaluate_embeddings
from fewspikes.measure.ranks import likeness, retrieval, spearman
from fewspikes.models import SentenceEncoder, load_model
from fewspikes.texts import Tokens, check_vocabulary, read_labels, read_sentences, tokenizer_of
from test_cli import run

transformers = pytest.importorskip("transformers", reason="needs the extra text")
from texts import SENTENCES, saved, tokenizer  # noqa: E402

MODELS = """
import torch
from torch import nn

class Bag(nn.Module):
    def __init__(self, numbers):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.first, self.last = nn.Embedding(120, 16), nn.Linear(16, 32), nn.Linear(32, numbers)

    def forward(self, tokens, mask):
        x, open_ = torch.relu(self.first(self.words(tokens))), mask[..., None].float()
        return self.last((x * open_).sum(1) / open_.sum(1).clamp(min=1e-9))

class Classifier(Bag):
    def forward(self, input_ids, attention_mask):
        return {"logits": super().forward(input_ids, attention_mask)}

def vectors():
    return Bag(8).eval()

def classifier():
    return Classifier(3).eval()

def three():
    class Three(Bag):
        def forward(self, a, b, c):
            return super().forward(a, b) + c
    return Three(3).eval()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A file of models, one of sentences, a tokenizer's folder."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "models.py").write_text(MODELS)
    (folder / "sentences.txt").write_text("\n".join(SENTENCES) + "\n\n")
    tokenizer().save_pretrained(folder / "words")
    return folder


def tokens_for(model, sentences=SENTENCES, length=None):
    return Tokens.of(tokenizer(), model, sentences, length)


class Named(torch.nn.Module):
    def forward(self, input_ids, token_type_ids=None, attention_mask=None):
        return input_ids


# Files.


def test_a_file_has_a_sentence_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffEins, zwei.\r\n\r\n  Drei – vier. \n".encode())
    assert read_sentences(tmp_path / "a.txt") == ["Eins, zwei.", "Drei – vier."]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no file .*; give --text FILE"), (b" \n\n", "holds no sentence"), (b"\xff\xfe", "is no UTF-8 text")],
)
def test_a_file_without_sentences_raises(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(FewSpikesError, match=message):
        read_sentences(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [("1\n2\n", "has 2 labels for 3 sentences"), ("1\n-2\n0\n", "line 2: .* got '-2'"), ("1\n\n0\n", "line 2")],
)
def test_labels_are_class_numbers_one_for_each_sentence(tmp_path, content, message):
    (tmp_path / "l.txt").write_text(content)
    with pytest.raises(FewSpikesError, match=message):
        read_labels(tmp_path / "l.txt", 3)
    (tmp_path / "l.txt").write_text("2\n0\n1\n\n")
    assert read_labels(tmp_path / "l.txt", 3) == [2, 0, 1]


# Tokens.


@pytest.mark.parametrize("length", [None, 6])
def test_tokens_are_those_of_transformers(length):
    made = tokens_for(Named(), length=length)
    given = tokenizer()(SENTENCES, padding="max_length", truncation=True, max_length=made.length, return_tensors="pt")
    found = made.batch(SENTENCES)
    assert list(found) == ["input_ids", "attention_mask"]
    assert all(torch.equal(value, given[name]) for name, value in found.items())
    assert bool(given["attention_mask"].all(1).any())  # the longest fills its row
    again = Tokens.from_json(json.loads(json.dumps(made.to_json())))
    assert all(torch.equal(value, found[name]) for name, value in again.batch(SENTENCES).items())


def test_cut_sentences_are_counted_and_said():
    made = tokens_for(Named(), length=6)
    longer = sum(len(tokenizer()(one)["input_ids"]) > 6 for one in SENTENCES)
    assert 0 < longer == sum(map(made.cuts, SENTENCES))
    with pytest.warns(FewSpikesWarning, match=f"{longer} of 8 sentences are longer than 6 tokens and are cut there"):
        batches = made.batches(SENTENCES, 3, range(8))
    assert [len(labels) for _, labels in batches] == [3, 3, 2]


@pytest.mark.parametrize(
    ("length", "message"),
    [(33, "the model has places for 32 tokens; got a length of 33"), (2, "adds 2 tokens to each; .* at least 3")],
)
def test_a_length_that_does_not_go_raises(length, message):
    with pytest.raises(FewSpikesError, match=message):
        tokens_for(Named(), length=length)


def test_one_cut_sentence_is_said_in_the_singular():
    made = tokens_for(Named(), length=6)
    with pytest.warns(FewSpikesWarning, match=r"1 of 1 sentence is longer than 6 tokens and is cut there"):
        made.batches(SENTENCES[6:7], 1)


def test_a_folder_without_a_tokenizer_raises(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no tokenizer in the folder .*; give a folder .* --tokenizer FOLDER$"):
        tokenizer_of(str(tmp_path))


# Vectors.


def test_rank_correlation_is_spearmans_ties_at_their_mean():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 6, (40,), generator=generator).double() for _ in range(2))
    assert spearman(a, b) == pytest.approx(float(spearmanr(a, b).statistic), abs=1e-12)
    assert spearman(a, torch.ones(40)) is None


def test_likeness_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    b = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    found = likeness(a, b)
    half = 0.5**0.5  # cosines of each row with its own: 1, 0.7, 0.7; of pairs: (0, .7, .7) and (.7, 0, .7)
    assert (found.cosine_mean, found.cosine_least) == pytest.approx(((1 + 2 * half) / 3, half))
    assert found.rank_correlation == pytest.approx(-0.5)


def test_retrieval_ranks_documents_for_each_query():
    documents = torch.eye(3)
    queries = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    others = torch.tensor([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    found = retrieval((queries, others), (documents, documents))
    assert (found.queries, found.documents, found.same_first) == (2, 3, 50.0)
    assert (found.rank_correlation, found.rank_correlation_least) == pytest.approx((-0.25, -1.0))


def test_padding_and_its_tokens_change_no_vector():
    torch.manual_seed(0)
    words = tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = SentenceEncoder(transformers.BertModel(config).eval()).eval()
    one = tokens_for(model, SENTENCES[:1]).batch(SENTENCES[:1])
    wide = tokens_for(model, SENTENCES[:1], 24).batch(SENTENCES[:1])
    wide["input_ids"] = torch.where(wide["attention_mask"] == 1, wide["input_ids"], 7)
    with torch.inference_mode():
        assert torch.allclose(model(**one), model(**wide), atol=1e-6)
        assert float(model(**one).norm()) == pytest.approx(1, abs=1e-6)


def pooled(folder, kinds, **modes):
    types = [
        {"path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(types))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))


def test_a_folder_of_sentence_transformers_is_the_network_of_its_vectors(tmp_path):
    folder = saved("BertModel", tmp_path)
    x = tokens_for(load_model(f"hf:{folder}").model).batch(SENTENCES)
    hidden = load_model(f"hf:{folder}").model(**x).last_hidden_state
    pooled(folder, ["Transformer", "Pooling", "Normalize"], pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    model = load_model(f"hf:{folder}").model
    wanted = torch.stack([h[m == 1].mean(0) for h, m in zip(hidden, x["attention_mask"], strict=True)])
    assert torch.allclose(model(**x), torch.nn.functional.normalize(wanted), atol=1e-6)
    pooled(folder, ["Transformer", "Pooling"], pooling_mode_cls_token=True)
    assert torch.equal(load_model(f"hf:{folder}").model(**x), hidden[:, 0])
    pooled(folder, ["Transformer", "Pooling", "Dense"], pooling_mode_cls_token=True)
    with pytest.raises(FewSpikesError, match="makes a vector with Dense, which has no equal here"):
        load_model(f"hf:{folder}")
    pooled(folder, ["Transformer", "Pooling"], pooling_mode_max_tokens=True)
    with pytest.raises(FewSpikesError, match="with pooling_mode_max_tokens"):
        load_model(f"hf:{folder}")


# Whole networks of transformers.

HEADS = {
    "BertForSequenceClassification": {"config": "BertConfig", "num_labels": 3},
    "GPT2ForSequenceClassification": {"config": "GPT2Config", "n_inner": 64, "num_labels": 3},
    "LlamaForSequenceClassification": {"config": "LlamaConfig", "num_labels": 3, "use_cache": False},
    "BertModel": {"config": "BertConfig"},
}


@pytest.mark.parametrize("kind", HEADS)
def test_networks_from_folders_convert_and_masks_count(kind, tmp_path):
    model = load_model(f"hf:{saved(kind, tmp_path, **HEADS[kind])}").model
    made = tokens_for(model)
    batches = made.batches(SENTENCES, 4)
    snn = fs.convert(model, batches[0], batches, K=16, effort="quick", repair=False)
    x = made.batch(SENTENCES[::-1][:5])
    with torch.inference_mode():
        for wanted, found in zip(model(**x).to_tuple(), snn.as_ann()(*x.values()).to_tuple(), strict=True):
            assert (wanted - found).abs().max() <= 1e-4 * wanted.abs().max()


# The command line.


def refused(message, *arguments):
    with pytest.raises(FewSpikesError, match=re.escape(message)) as raised:
        app([str(one) for one in arguments], standalone_mode=False)
    assert "\n" not in str(raised.value)


def test_vectors_on_the_command_line(place):
    model, text = f"{place / 'models.py'}:vectors", place / "sentences.txt"
    made = run(
        "convert", model, "--text", text, "--tokenizer", place / "words", "-K", 8, "-o", place / "v.fs", "--json"
    )
    assert json.loads(made.stdout)["calibration_images"] == len(SENTENCES)
    found = json.loads(run("evaluate", place / "v.fs", "--text", text, "--reference", model, "--json").stdout)
    assert found["images"] == len(SENTENCES)
    assert 0.99 < found["cosine_least"] <= found["cosine_mean"] <= 1
    assert found["rank_correlation"] > 0.95
    assert found["agreement"] is None
    snn = fs.load(place / "v.fs")
    tokens = Tokens.from_json(snn.preprocessing)
    here = evaluate_embeddings(snn, tokens.batches(SENTENCES, 32), progress=False)
    assert here.likeness.cosine_mean == pytest.approx(found["cosine_mean"], abs=1e-6)
    shown = run("evaluate", place / "v.fs", "--text", text, "--limit", 4).stdout
    assert re.search(r"sentences +4\n +cosine +\S+ mean, \S+ least\n +rank correlation +\S+\n", shown)
    assert "no classes" not in shown


def test_convert_speaks_of_sentences_and_of_tokens(place):
    (place / "one.txt").write_text("Spikes!")
    done = run(
        "convert",
        f"{place / 'models.py'}:vectors",
        "--text",
        place / "one.txt",
        "--tokenizer",
        place / "words",
        "-K",
        4,
    )
    assert "calibrated on 1 sentence: all is fitted to that one; give more\n" in done.stdout
    assert re.search(r"each sentence has \d tokens, padding included\n", done.stdout)
    assert "image" not in done.stdout
    assert done.stderr.startswith(
        "warning: calibrated on 1 sentence alone, so all is fitted to that one; give some dozens"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("words", "vocabulary of 120 and gives token 119, but the model's table words has 50 rows; give the tokenizer"),
        (
            "places",
            "row 19 of its table places, which has 4; if these are places in a sentence, give a smaller --length",
        ),
    ],
)
def test_a_tokenizer_that_a_models_tables_do_not_know_is_refused(table, message):
    model = Tables(**{table: {"words": 50, "places": 4}[table]}).eval()
    made = tokens_for(model)
    with pytest.raises(FewSpikesError, match=re.escape(re.sub(r"row 19", f"row {made.length - 1}", message))):
        check_vocabulary(model, made, made.batches(SENTENCES, 3, range(8)))
    check_vocabulary(Tables().eval(), made, made.batches(SENTENCES, 3))


class Tables(torch.nn.Module):
    def __init__(self, words=120, places=32):
        super().__init__()
        self.words, self.places = torch.nn.Embedding(words, 4), torch.nn.Embedding(places, 4)

    def forward(self, input_ids):
        return self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))


def test_classes_on_the_command_line(place):
    model, text = f"{place / 'models.py'}:classifier", place / "sentences.txt"
    run("convert", model, "--text", text, "--tokenizer", place / "words", "--length", 20, "-K", 8, "-o", place / "c.fs")
    snn = fs.load(place / "c.fs")
    assert [spec.shape for spec in snn.inputs] == [(20,), (20,)]
    plain = json.loads(run("evaluate", place / "c.fs", "--text", text, "--json").stdout)
    assert plain["agreement"] >= 87.5
    assert plain["ann_top1"] is None
    assert "cosine_mean" not in plain
    answers = snn.as_ann()(*Tokens.from_json(snn.preprocessing).batch(SENTENCES).values())["logits"].argmax(1)
    (place / "l.txt").write_text("\n".join(str(int(n)) for n in answers))
    right = json.loads(run("evaluate", place / "c.fs", "--text", text, "--labels", place / "l.txt", "--json").stdout)
    assert right["ann_top1"] == 100.0
    assert right["snn_top1"] == right["agreement"] == plain["agreement"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["classifier"], "models.py:classifier does not say how sentences become tokens; give --tokenizer FOLDER"),
        (["classifier", "--tokenizer", "WORDS", "--shape", 3], "--shape does not go with --text"),
        (["classifier", "--tokenizer", "HERE"], "no tokenizer in the folder"),
        (["three", "--tokenizer", "WORDS"], "forward of Three takes a, b, c; for text it must take input_ids"),
    ],
)
def test_bad_use_of_text_raises(place, given, message):
    name, *rest = [{"WORDS": place / "words", "HERE": place}.get(word, word) for word in given]
    refused(message, "convert", f"{place / 'models.py'}:{name}", "--text", place / "sentences.txt", *rest)


def test_labels_alone_and_pictures_for_a_network_of_sentences_are_refused(place):
    refused("--labels are those of --text FILE", "evaluate", place / "v.fs", "--labels", "x")
    snn = fs.convert(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval(), torch.zeros(1, 4))
    fs.save(snn, place / "plain.fs")
    text = place / "sentences.txt"
    message = "holds no tokenizer; convert the model with --text FILE"
    refused(message, "evaluate", place / "plain.fs", "--text", text)
    snn.preprocessing = {"tokenizer": "{}", "inputs": {"x": "input_ids"}, "length": 4}
    fs.save(snn, place / "words.fs")
    refused("takes sentences; give --text FILE", "evaluate", place / "words.fs", "--data", place)
    refused("cannot be read", "evaluate", place / "words.fs", "--text", text)


def test_a_folder_of_transformers_on_the_command_line(place, tmp_path):
    folder = saved("BertModel", tmp_path)
    pooled(folder, ["Transformer", "Pooling", "Normalize"], pooling_mode_mean_tokens=True)
    text = place / "sentences.txt"
    run(
        "convert", f"hf:{folder}", "--text", text, "-K", 16, "--effort", "quick", "--no-repair", "-o", tmp_path / "b.fs"
    )
    shutil.rmtree(folder / "1_Pooling")  # the network's file has all that it needs
    found = json.loads(run("evaluate", tmp_path / "b.fs", "--text", text, "--json").stdout)
    assert found["cosine_mean"] > 0.99
