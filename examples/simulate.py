"""A small network spike by spike: three engines, the pipeline, one neuron at work, and a recording.

python examples/simulate.py
"""

import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

import fewspikes as fs
from fewspikes.simulation.courses import course


def main() -> None:
    torch.manual_seed(0)
    layers = {"first": nn.Linear(16, 32), "one": nn.SiLU(), "mid": nn.Linear(32, 32), "two": nn.SiLU()}
    model = nn.Sequential(OrderedDict(layers, last=nn.Linear(32, 4))).double().eval()
    images = torch.randn(256, 16, dtype=torch.float64)
    snn, x = fs.convert(model, images[:1], images, K=8), images[:5]

    print("The same spikes, whoever computes them:")
    fast = snn(x)
    for engine in ("steps", "pipeline", "events", fs.Pipeline(membranes=2)):
        trace = fs.simulate(snn, x, engine)
        print(f"  {engine!s:40} {trace.counts.total} spikes, outputs differ by {(trace.output - fast).abs().max():.1g}")

    trace = fs.simulate(snn, x)
    print("Step by step, the spikes of five images:")
    for site, (first, last) in trace.times.items():
        print(f"  {site}, steps {first} to {last}: {trace.per_step[site][first - 1 : last].tolist()}")
    assert trace.running is not None
    print("The class of each image after each of the last steps; the answer is there after step", trace.answer)
    for step, output in zip(trace.running_steps, trace.running, strict=True):
        print(f"  {step}: {output.argmax(1).tolist()}")

    for membranes in (1, 2):
        piped = fs.simulate(snn, x, fs.Pipeline(membranes))
        print(f"Membranes {membranes}: an image every {piped.interval} steps, each answered after {piped.answer}")

    one = course(snn, x[:1], "one")
    print(f"Neuron {one.neuron} of layer one takes in {one.v[0]:.3f} and stands for {one.output:.3f}:")
    for t, (v, T, z) in enumerate(zip(one.v, one.T, one.z, strict=True), 1):
        print(f"  t={t}: v = {v:6.3f}  T = {T:6.3f}  {'spike' if z else ''}")

    with tempfile.TemporaryDirectory() as folder:
        fs.simulate(snn, x, "events", fs.Recording(folder=Path(folder) / "spikes"))
        found = fs.read_events(Path(folder) / "spikes")
        event = [int(value[0]) for value in found.events()]
        print("The first event of the recording:", dict(zip(found.events()._fields, event, strict=True)))


if __name__ == "__main__":
    main()
