"""The committed results as tables: docs/results/README.md, written from the JSON files beside it.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fewspikes.base.files import write_aside

FOLDER = Path(__file__).parent.parent / "docs" / "results"
NETWORKS = ("efficientnet_b0", "efficientnet_b7", "resnet20", "lite0")
_PAPER = ("table1", "table2", "table3", "claims")


def main() -> None:
    """Write the page."""
    compared = (
        *networks(),
        *coverage(),
        *spiking(),
        *maxima(),
        *products(),
        *minilm(),
        *speaker(),
        *simulation(),
        *events(),
        *early(),
        *faults(),
        *integers(),
        *peers(),
        *baselines(),
        *activity(),
        *attack(),
    )
    parts = [_HEAD, *accuracies(), *neurons(), *activations(), *compared, *paper()]
    write_aside(FOLDER / "README.md", ("\n".join(parts) + "\n").encode())


def accuracies() -> Iterator[str]:
    """Accuracy of converted networks: the table that `accuracy.py` wrote, with what its words mean."""
    yield _ACCURACY
    old = (FOLDER / "README.md").read_text()
    yield _BEGIN + old.partition(_BEGIN)[2].partition(_END)[0] + _END + "\n"


def neurons() -> Iterator[str]:
    """Single neurons."""
    content = read("bench_neurons")
    if content is None:
        return
    yield from section("Single neurons", "fewspikes bench -o docs/results/bench_neurons.json", content)
    names = list(content["activation"][0]["ns_per_element"])
    lines = (
        [
            row["K"],
            f"{row['elements']:,}",
            *(f"{row['ns_per_element'][n]:.2f}" for n in names),
            f"{row['eager_loop_over_layer']:.0f}",
        ]
        for row in content["activation"]
    )
    yield from table(["K", "elements", *(f"{n}, ns" for n in names), "eager loop / layer"], lines)


def activations() -> Iterator[str]:
    """Elementwise functions."""
    content = read("activations")
    if content is None:
        return
    yield from section("Elementwise functions", content["command"], content)
    yield (
        f"Inputs of N(0, {content['inputs']['variance']:g}), fitted on as many others. Error: mean squared, over the "
        "output's variance. By channel: another constant for each of 8 channels.\n"
    )
    ks = list(content["rows"][0]["by_k"])
    lines = (
        [
            f"`{row['function']}`".replace("|", "\\|"),
            row["sites"],
            f"{row['neurons_per_element']:g}",
            *(f"{row['by_k'][k]['relative_error']:.1e}" for k in ks),
            *(f"{row['by_k'][k]['spikes_per_element']:.2f}" for k in ks),
        ]
        for row in content["rows"]
    )
    measured = [*(f"error, K={k}" for k in ks), *(f"spikes, K={k}" for k in ks)]
    yield from table(["function", "layers", "neurons", *measured], lines)


def attack() -> Iterator[str]:
    """Damaged files and odd calls."""
    content = read("attack")
    if content is None:
        return
    yield from section("Damaged files and odd calls", content["command"], content)
    most = [max(part[key] for part in content["parts"].values() if part) for key in ("most_seconds", "most_mib")]
    yield (
        "Refused: in one line. Equal: what was saved, bit for bit. Loaded: forged and sealed again, or of a kind that "
        "has no checksum of ours. Violations: anything else that was raised, another value in silence, more than "
        f"{content['limits']['seconds']:g} s of the processor or {content['limits']['mib']:,} MiB; the most was "
        f"{most[0]:.1f} s and {most[1]:,.0f} MiB.\n"
    )
    outcomes = ("refused", "equal", "loaded", "result", "violation")
    kinds = [(name, row) for part in content["parts"].values() for name, row in part.get("kinds", {}).items()]
    lines = ([name, f"{row['cases']:,}", *(f"{row.get(key, 0):,}" for key in outcomes)] for name, row in kinds)
    yield from table(["what", "cases", *outcomes[:3], "returned", "violations"], lines)


def networks() -> Iterator[str]:
    """Networks beside their ANN."""
    found = [(name, content) for name in NETWORKS if (content := read(f"bench_{name}")) is not None]
    if not found:
        return
    yield from section("Networks beside their ANN", "fewspikes bench MODEL --random-weights ...", found[0][1])
    yield "Images per second, spikes counted; the folded ANN has its batch norms in its convolutions, as the SNN has.\n"
    columns = [
        "network",
        "input",
        "K",
        "batch",
        "ANN",
        "folded ANN",
        "SNN",
        "SNN / ANN",
        "SNN / folded",
        "peak memory, MiB",
        "ratio",
        "date",
    ]

    def lines() -> Iterator[list[Any]]:
        for name, content in found:
            row, memory = content["networks"][0], content["memory"][0]
            speed = row["images_per_second"]
            yield [
                name,
                "x".join(map(str, row["input"])),
                steps(row["K"]),
                row["batch"],
                *(
                    number(round(speed[key]) if speed[key] > 100 else speed[key])
                    for key in ("ann", "ann_folded", "snn_counted")
                ),
                f"{row['snn_over_ann']:.2f}",
                f"{row['snn_over_folded_ann']:.2f}",
                f"{memory['ann_mib']:.0f} → {memory['snn_mib']:.0f}",
                f"{memory['snn_over_ann']:.2f}",
                content["conditions"]["date"],
            ]

    yield from table(columns, lines())


def coverage() -> Iterator[str]:
    """Which models convert."""
    content = read("coverage")
    if content is None:
        return
    yield from section("Which networks convert", content["command"], content)
    yield (
        "Random weights, random images. Error: ||s - a|| / ||a - mean of a over images|| of all outputs together, s of "
        "the spiking network, a of the ANN, on images that nothing was fitted on.\n"
    )
    for title, part in (("library models", content["library"]), ("networks as users write them", content["kinds"])):
        options, rows = part["options"], part["rows"]
        if not rows:
            continue
        counts = ", ".join(f"{n} {status}" for status, n in part["counts"].items())
        errors = sorted(row["error"] for row in rows if row.get("error") is not None)
        middle = f"; the median error is {errors[len(errors) // 2]:.3f}" if errors else ""
        settings = f"K={options['K']}, {options['images']} images to calibrate on, effort {options['effort']}"
        yield f"### {part['of']} {title}\n"
        yield f"{settings}, circuits {options['circuits'] or 'digital'}: {counts}{middle}.\n"
        columns = ["network", "", "sites", "neurons", "error", "left digital, or why not"]
        lines = (
            [
                row["name"],
                row["status"],
                row.get("sites", ""),
                f"{row['neurons']:,}" if "neurons" in row else "",
                f"{row['error']:.3f}" if row.get("error") is not None else "",
                _operators(row.get("left_digital") or row.get("operators", {})) or row.get("why", "").partition(";")[0],
            ]
            for row in rows
        )
        yield from table(columns, lines)


def spiking() -> Iterator[str]:
    """Networks with everything made of spikes, the worst error first."""
    content = read("spiking")
    if content is None:
        return
    yield from section("Everything made of spikes", content["command"], content)
    options = content["options"]
    yield (
        f"circuits={options['circuits']!r}, K={options['K']}, random weights, calibrated on {options['images']} random "
        "images or more and measured on others. Error as above; beside it that of the ANN itself in half precision: "
        "where that is large, the network makes much of any small error.\n"
    )
    columns = ["network", "family", "error", "ANN in float16", "in bfloat16", "effort", "neurons", "spikes a neuron"]
    rows = sorted(content["rows"], key=lambda row: -(row.get("error") or 0.0))
    lines = ([row["name"], row["family"], *_errors(row), row["effort"], *_spikes(row)] for row in rows)
    yield from table([*columns, "steps", "left digital, or why not"], lines)


def _errors(row: dict[str, Any]) -> list[str]:
    found = [row.get(name) for name in ("error", "error_float16", "error_bfloat16")]
    return ["" if error is None else f"{error:.2g}" for error in found]


def _spikes(row: dict[str, Any]) -> list[str]:
    if row["status"] != "ok":
        return ["", "", "", f"{row['status']}: {row.get('why', '')}"]
    digital = _operators(row["left_digital"])
    return [f"{row['neurons']:,}", f"{row['spikes_per_neuron']:.2f}", f"{row['latency_steps']:,}", digital]


def maxima() -> Iterator[str]:
    """Max pools as neurons, and inputs as spikes."""
    content = read("maxima")
    if content is None:
        return
    yield from section("Max pools as neurons", content["command"], content)
    yield (
        f"A VGG with four max pools, trained on CIFAR-10, on {content['images']:,} test images: the same codes with "
        "its pools digital and as neurons.\n"
    )
    columns = ["K", "same bits", "ANN", "digital", "neurons", "neurons (digital)", "spikes per neuron", "steps"]
    lines = (
        [
            row["K"],
            "yes" if row["equal_bits"] else "no",
            f"{row['ann_top1']:.2f}%",
            f"{row['digital_top1']:.2f}%",
            f"{row['neurons_top1']:.2f}%",
            f"{row['neurons_neurons']:,} ({row['digital_neurons']:,})",
            f"{row['neurons_spikes_per_neuron']:.3f} ({row['digital_spikes_per_neuron']:.3f})",
            f"{row['neurons_latency_steps']} ({row['digital_latency_steps']})",
        ]
        for row in content["vgg"]
    )
    yield from table(columns, lines)
    yield "Multiply-adds per image that are left where inputs and maxima are spikes:\n"
    columns = ["network", "ANN", "inputs analog, maxima digital", "both as spikes", "operators left digital"]
    lines = (
        [
            row["model"],
            f"{row['ann_macs']:,}",
            f"{row['macs_with_analog_inputs']:,}",
            f"{row['macs_with_spikes']:,}",
            row["left_digital"],
        ]
        for row in content["multiply_adds"]
    )
    yield from table(columns, lines)


def products() -> Iterator[str]:
    """Squeeze and excitation as spikes."""
    content = read("products")
    if content is None:
        return
    yield from section("Products as spikes", f"{content['command']} --data DIR", content)
    shared = ["neurons", "layers", "spikes per neuron", "steps", "synops", "multiply-adds left (ANN)", "left digital"]
    rows = content.get("cifar_efficientnet", [])
    if rows:
        yield (
            "Our small EfficientNet on CIFAR-10's test images, calibrated and repaired on "
            f"{rows[0]['calibration_images']} training images; per image.\n"
        )
        lines = ([*_choice(row), *_accuracy(row), *_price(row)] for row in rows)
        yield from table(["circuits", "K", "seed", "images", "top-1 ANN → SNN", "same class", *shared], lines)
    rows = content.get("efficientnet_b7", [])
    if rows:
        yield (
            "The paper's EfficientNet-B7 (timm's tf_efficientnet_b7, 600 x 600), random weights, calibrated on the one "
            "image of noise that it ran. Digital is the paper's way. Error of the logits: ||s - a|| / ||a - mean||.\n"
        )
        lines = (
            [*_choice(row)[:2], f"{row['relative_error']:.3f}", *_price(row), row["convert_seconds"], row["peak_mib"]]
            for row in rows
        )
        yield from table(["circuits", "K", "error", *shared, "seconds to convert", "MiB at most"], lines)


def _choice(row: dict[str, Any]) -> list[Any]:
    given = row["settings"]
    more = "" if given.get("squares_K") is None else f", squares {given['squares_K']}"
    return [given["circuits"], f"{given['K']}{more}", given["seed"]]


def _accuracy(row: dict[str, Any]) -> list[Any]:
    accuracy = f"{row['ann_top1']:.2f} → {row['snn_top1']:.2f}"
    return [f"{row['settings']['images']:,}", accuracy, f"{row['agreement']:.2f}%"]


def _price(row: dict[str, Any]) -> list[Any]:
    return [
        f"{row['neurons']:,}",
        row["layers"],
        f"{row['spikes_per_neuron']:.2f}",
        row["latency_steps"],
        f"{row.get('synops', row.get('synops_per_image')):,.0f}",
        f"{row['multiply_adds_left']:,} ({row['multiply_adds']:,})",
        row["left_digital"],
    ]


def minilm() -> Iterator[str]:
    """A transformer's sentence vectors."""
    content = read("minilm")
    if content is None:
        return
    yield from section("Sentence vectors by spikes", content["command"], content)
    first = content["rows"][0]
    yield (
        f"all-MiniLM-L6-v2 on {first['sentences']} sentences of up to {first['settings']['length']} tokens, calibrated "
        f"on others. Rank correlations: of the cosines of all pairs; of each query's ranking of "
        f"{first['retrieval']['documents']} documents, mean over {first['retrieval']['queries']} queries.\n"
    )
    columns = ["circuits", "K", "calibrated on", "repair, distilled", "cosine (spread, least)", "rank: pairs, queries"]
    columns += ["same first", "neurons", "spikes per neuron", "steps", "multiply-adds (ANN)", "left digital"]
    yield from table(columns, map(_sentences, content["rows"]))


def _sentences(row: dict[str, Any]) -> list[Any]:
    settings, found = row["settings"], row["retrieval"]
    minutes = "no" if settings["distil"] is None else f"{settings['distil']:g} min"
    return [
        settings["circuits"],
        row["k"] if isinstance(row["k"], int) else "–".join(map(str, row["k"])),
        settings["calibration"],
        f"{'yes' if settings['repair'] else 'no'}, {minutes}",
        f"{row['cosine_mean']:.4f} ({row['cosine_std']:.4f}, {row['cosine_least']:.4f})",
        f"{row['rank_correlation']:.4f}, {found['rank_correlation']:.4f}",
        f"{found['same_first']:.0f}%",
        f"{row['neurons']:,}",
        f"{row['spikes_per_neuron']:.2f}",
        row["latency_steps"],
        f"{row['macs_per_sentence']:,} ({row['ann_macs_per_sentence']:,})",
        _operators(row["left_digital"]) or "nothing",
    ]


def _operators(counts: dict[str, int]) -> str:
    """Operators, and how often each is there.

    >>> _operators({"aten.max_pool2d.default": 3, "aten.mul.Tensor": 1})
    '3 x max_pool2d, mul'
    """
    names = ((name.removeprefix("aten.").split(".")[0], n) for name, n in counts.items())
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in names)


def speaker() -> Iterator[str]:
    """A trained LSTM's voices."""
    content = read("speaker")
    if content is None:
        return
    yield from section("Voices by a recurrent network", content["command"], content)
    yield (
        f"resemblyzer's encoder, an LSTM of three layers with its own weights and a norm, calibrated on "
        f"{content['calibration_utterances']} utterances. Speech: {content['speech']}. Found again: the nearest other "
        "utterance is of the same voice.\n"
    )
    columns = ["product", "K", "frames", "utterances", "cosine (least)", "found again ANN → SNN"]
    columns += ["neurons", "spikes per neuron and frame", "steps per frame"]
    cells = ((row, row[part]) for row in content["rows"] for part in ("held", "longer"))
    yield from table(
        columns,
        (
            [
                row["product"],
                row["K"],
                own["frames"],
                own["utterances"],
                f"{own['cosine']:.4f} ({own['least_cosine']:.4f})",
                f"{own['found_again_ann']:.1f} → {own['found_again_snn']:.1f}%",
                f"{row['neurons']:,}",
                f"{own['spikes_per_neuron_and_time_step']:.2f}",
                row["steps_per_frame"],
            ]
            for row, own in cells
        ),
    )


def simulation() -> Iterator[str]:
    """All spikes of the simulation's engines beside the fast network's."""
    content = read("simulation")
    if content is None:
        return
    yield from section("The network spike by spike", content["command"], content)
    yield (
        "`fs.simulate` beside the fast network, on real inputs; answer and interval in steps. In float64 all engines "
        "fire its spikes. In float32 sums are formed in another order, and one neuron that fires otherwise changes "
        "what follows: how many spikes differ, in how many images, and how many classes. Site by site: each layer is "
        "fed with the fast network's own spikes, and of all chances to fire it is told how many come out otherwise.\n"
    )
    columns = ["network", "circuits", "K", "inputs", "dtype", "engine", "spikes", "apart", "images", "classes"]
    columns += ["output apart", "synaptic operations (by the graph)", "answer", "interval"]
    yield from table(columns, map(_simulated, content["rows"]))


def _simulated(row: dict[str, Any]) -> list[Any]:
    about = [row[name] for name in ("network", "circuits", "K", "images", "dtype")]
    if "of" in row:
        return [*about, "site by site", "", f"{row['apart']} of {row['of']:,}", *[""] * 6]
    synops = "" if row["synops"] is None else f"{row['synops']:,} ({row['synops_by_graph']:,})"
    apart = [f"{row['spikes_apart']:,}", row["images_apart"], row["classes_apart"], f"{row['output_apart']:.1e}"]
    return [*about, row["engine"], f"{row['spikes']:,}", *apart, synops, row["answer"], row["interval"] or ""]


def events() -> Iterator[str]:
    """The event engine's time."""
    content = read("events")
    if content is None:
        return
    yield from section("The event engine's time", content["conditions"]["command"], content)
    line = content["line"]
    yield (
        f"ResNet20 on one core. A straight line through all rows: {line['seconds_without_any'] * 1e3:.0f} ms and "
        f"{line['seconds_per_million_synops'] * 1e3:.2f} ms for each million of synaptic operations, correlation "
        f"{line['correlation']:.3f}.\n"
    )
    columns = [
        "K",
        "price of a spike",
        "spikes per neuron",
        "million synops an image",
        "ms an image",
        "million synops/s",
    ]
    lines = (
        [
            row["settings"]["K"],
            row["settings"].get("spike_price", 0),
            f"{row['spikes_per_neuron']:.2f}",
            f"{row['synops_per_image'] / 1e6:.1f}",
            f"{row['seconds_per_image'] * 1e3:.0f}",
            f"{row['synops_per_second'] / 1e6:.0f}",
        ]
        for row in content["rows"]
    )
    yield from table(columns, lines)


def early() -> Iterator[str]:
    """The accuracy of the running output."""
    content = read("early")
    if content is None:
        return
    yield from section("Early answers", content["conditions"]["command"], content)
    yield f"The class of the running output after each of the last steps, {content['images']:,} test images.\n"
    yield "![accuracy over the last steps](early.png)\n"
    for row in content["rows"]:
        yield f"{row['network']}, K = {row['K']}, ANN {row['ann_top1']:.1f}%:\n"
        cells = (row["top1"], row["same_as_last"])
        names = ("top-1", "as the last step's")
        lines = ([name, *(f"{value:.1f}%" for value in own)] for name, own in zip(names, cells, strict=True))
        yield from table(["after step", *map(str, row["steps"])], lines)


def faults() -> Iterator[str]:
    """Accuracy with faults."""
    content = read("noise")
    if content is None:
        return
    yield from section("Spikes lost, late, made up, and noise", content["conditions"]["command"], content)
    images = {row["images"] for row in content["lines"]}
    otherwise = [row["simulated_otherwise_of_10"] for row in content["lines"] if "simulated_otherwise_of_10" in row]
    yield (
        f"Top-1 on {', '.join(f'{n:,}' for n in sorted(images))} test images, mean and standard deviation of "
        f"{content['conditions']['seeds']} seeds; one fault at a time, of this size (docs/simulation.md says what each "
        f"is). `simulate` and the fast network gave another class in {sum(otherwise)} of {10 * len(otherwise):,} "
        "comparisons.\n"
    )
    yield "![accuracy with faults](noise.png)\n"
    sizes = sorted({row["size"] for row in content["curves"]} - {0.0})
    found = {(row["network"], row["fault"], row["size"]): row for row in content["curves"]}
    for network in dict.fromkeys(row["network"] for row in content["curves"]):
        yield f"{network}, without faults {found[network, 'none', 0.0]['snn_top1']:.1f}%:\n"
        names = [name for name in dict.fromkeys(row["fault"] for row in content["curves"]) if name != "none"]
        cells = ([name, *(_spread(found.get((network, name, size))) for size in sizes)] for name in names)
        yield from table(["fault", *(f"{size:.1%}" for size in sizes)], cells)


def _spread(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    spread = row["standard_deviation"]
    return f"{row['snn_top1']:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def integers() -> Iterator[str]:
    """Whole numbers."""
    content = read("integers")
    if content is None:
        return
    yield from section("Whole numbers", content["command"], content)
    yield "`fs.to_integer`: 8-bit weights. Equal: outputs and counts of both engines, bit for bit, on so many images.\n"
    columns = [
        "network",
        "images",
        "top-1 ANN / SNN / whole",
        "class as SNN",
        "images/s ANN / SNN / whole",
        "whole / ANN",
        "equal on",
    ]
    lines = (
        [
            row["row"],
            f"{row['images']:,}",
            " / ".join(f"{row['top1'][key]:.2f}" for key in ("ann", "snn", "whole")),
            f"{row['same_class_as_snn']:.2f}%",
            " / ".join(f"{row['images_per_second'][key]:.0f}" for key in ("ann", "snn", "whole")),
            f"{row['whole_over_ann']:.2f}",
            f"{row['compared']:,}" if row["bits_equal"] and row["counts_equal"] else "NOT EQUAL",
        ]
        for row in content["rows"]
    )
    yield from table(columns, lines)


def peers() -> Iterator[str]:
    """Other libraries and formulations."""
    content = read("peers")
    if content is None:
        return
    yield from section("Peers", "python benchmarks/peers/compare.py --data DIR", content)
    yield f"ResNet20 (third-party weights), {content['rows'][0]['images']:,} CIFAR-10 test images, the same for all.\n"
    lines = (
        [
            row["row"],
            row["steps_per_layer"] or "",
            f"{row['top1']:.1f}",
            f"{row['agreement']:.1f}",
            "" if row["spikes_per_neuron"] is None else f"{row['spikes_per_neuron']:.2f}",
            f"{row['seconds']:.2f}",
        ]
        for row in content["rows"]
    )
    yield from table(["", "steps a layer", "top-1, %", "class as ANN, %", "spikes per neuron", "seconds"], lines)


def baselines() -> Iterator[str]:
    """Older codes."""
    content = read("baselines")
    if content is None:
        return
    yield from section("Older codes", "python benchmarks/baselines/compare.py --data DIR", content)
    yield (
        "ResNet20 (third-party weights), CIFAR-10 test images, the same for all. Rate: integrate and fire, soft reset, "
        "thresholds at the 99.9th percentile. First spike: its time takes one of so many values, without error.\n"
    )
    lines = (
        [
            row["network"],
            row["code"],
            row.get("steps", ""),
            f"{row['images']:,}",
            f"{row['top1']:.1f}",
            f"{row['agreement']:.1f}",
            number(row.get("spikes_per_neuron")),
        ]
        for row in content["rows"]
    )
    yield from table(
        ["network", "code", "steps a layer", "images", "top-1, %", "class as ANN, %", "spikes per neuron"], lines
    )


def activity() -> Iterator[str]:
    """Why some networks spike more."""
    content = read("activity")
    if content is None:
        return
    yield from section("Why some networks need more spikes", "python benchmarks/activity.py --data DIR", content)
    yield (
        f"In the paper's setting (K=10, alpha=25: the same code everywhere), {content['images']} CIFAR-10 test images. "
        "Larger outputs have more bits to send, and our own networks have larger ones than the third-party ResNet20. "
        "The paper's have 1.39 (ResNet20), 1.45 (ResNet14) and 1.41 (ResNet8) spikes per neuron.\n"
    )
    columns = ["network", "weights", "spikes per neuron", "neurons that fire, %", "spikes of those", "rms output"]
    lines = (
        [
            row["network"],
            row["weights"],
            f"{row['spikes_per_neuron']:.2f}",
            f"{100 * row['active']:.1f}",
            f"{row['spikes_per_active']:.2f}",
            f"{row['rms']:.2f}",
        ]
        for row in content["rows"]
    )
    yield from table(columns, lines)


def paper() -> Iterator[str]:
    """The paper's tables."""
    for name in _PAPER:
        content = read(f"paper/{name}")
        if content is None:
            continue
        yield from section(f"The paper's {name}", f"{content['command']} --data DIR", content)
        if name == "claims":
            lines = (
                [row[key] if isinstance(row[key], str) else number(row[key]) for key in _CLAIM]
                for row in content["rows"]
            )
            yield from table(list(_CLAIM), lines)
        else:
            columns = _COMPARED if name == "table3" else _ROW
            lines = ([shown(row, key) for key in columns] for row in content["rows"])
            yield from table(list(columns.values()), lines)
        yield from (f"- {row['model']}: {row['unavailable']}" for row in content["rows"] if "unavailable" in row)
        yield from (f"- {note}" for note in content["notes"])
        yield ""
    pictures = sorted((FOLDER / "paper").glob("fig*.png"))
    if pictures:
        yield "## The paper's figures\n"
        yield "`fewspikes reproduce all --data DIR`; numbers beside each picture as JSON and CSV.\n"
    yield from (f"![{file.stem}](paper/{file.name})\n" for file in pictures)


_CLAIM = ("claim", "arithmetic", "paper", "measured", "calibrated")
_ROW = {
    "row": "row",
    "model": "model",
    "weights": "weights",
    "images": "images",
    "ann_top1": "ANN, %",
    "snn_top1": "SNN, %",
    "drop": "drop (95%)",
    "agreement": "same class, %",
    "k": "K",
    "neurons": "neurons",
    "spikes_per_image": "spikes an image",
    "spikes_per_neuron": "per neuron",
    "latency_steps": "steps, longest chain",
    "paper_latency_steps": "steps, layers x K",
}
_PERCENT = ("ann_top1", "snn_top1", "agreement")
_COMPARED = {
    "row": "row",
    "data": "data",
    "network": "network",
    "source": "source",
    "weights": "weights",
    "ann_top1": "ANN, %",
    "snn_top1": "SNN, %",
    "steps": "steps",
    "steps_counted": "counted",
    "latency_steps": "steps, longest chain",
    "spikes_per_neuron": "spikes per neuron",
}
_HEAD = """# Results

Measured by the commands named; each JSON file here holds seed, versions and machine. This page is written from them by
`python benchmarks/tables.py`. Fits of single codes are in [fitting.json](fitting.json)
(`python benchmarks/fitting.py`).
"""
_BEGIN, _END = "<!-- accuracy: begin -->\n", "<!-- accuracy: end -->"
_ACCURACY = """## Accuracy of converted networks

`python benchmarks/accuracy.py --data DIR`, which writes this table

| setting | what it is |
|---|---|
| paper | the paper's own: K=10, α=25 or the cap, rounded down; one table for the whole network |
| paper's tables | the paper's own tables for SiLU (K=16) and sigmoid (K=12) |
| calibrated | `fs.convert` with 512 unlabelled training images (Lite0: 50 photographs); weights untouched |
| few spikes | calibrated with a price on spikes (`spike_price`) |
| distilled | `fs.distil` after that, some minutes on two cores; weights untouched |
| mixed K | `fs.convert` with a budget of steps in place of K, so that each site has a K of its own |

"Same class" is the share of images that ANN and SNN put into one class; spikes per neuron are a mean over all neurons
and images; steps are the sum of K over the longest chain of neurons. One run each, seed 0. Mean and spread of the
rows that were run with several seeds, intervals of 95%, options and versions are in [accuracy.json](accuracy.json).

The weights of resnet20, resnet44 and Lite0 are third-party; `cifar_efficientnet` (SiLU, squeeze and excitation, 0.35M
parameters) is ours and ships with the package, as do a ResNet-8, a ResNet-14 and a ResNet-20, trained by the commands
in their files. The photographs come from ImageNet's *training* set, so their accuracy reads high: compare SNN with ANN.
"""


def read(name: str) -> dict[str, Any] | None:
    """A result, or None if it is not there."""
    file = FOLDER / f"{name}.json"
    found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
    return found


def section(title: str, command: str, content: dict[str, Any]) -> Iterator[str]:
    """A heading with what it was made by and on."""
    signed = content["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in signed["versions"].items())
    machine = signed["machine"]
    yield f"## {title}\n"
    yield f"`{command}`  "
    yield f"{signed['date']}, {machine['gpu'] or machine['processor']}, {machine['threads']} threads, {versions}\n"


def table(columns: Sequence[str], rows: Any) -> Iterator[str]:
    """Markdown."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)
    yield ""


def shown(row: dict[str, Any], key: str) -> str:
    """A cell of a row with an EvaluationReport's keys."""
    value = row.get(key)
    if key == "k":
        return steps(value)
    if key in _PERCENT and value is not None:
        return f"{value:.2f}"
    if key == "drop" and row.get("drop_ci95") is not None:
        low, high = row["drop_ci95"]
        return f"{value:.2f} ({low:.2f} to {high:.2f})"
    return value if isinstance(value, str) else number(value)


def steps(k: Any) -> str:
    """K, or from where to where."""
    if k is None:
        return ""
    values = list(k.values()) if isinstance(k, dict) else k if isinstance(k, list) else [k]
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def number(value: float | None) -> str:
    """Whole numbers whole, others with two places."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.2f}"


if __name__ == "__main__":
    main()
