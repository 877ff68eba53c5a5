"""Convert a network, count its spikes, save it and load it again.

The network is untrained and the images are made up, so the agreement that it prints means little: it shows the calls.

python examples/convert_a_network.py
"""

import tempfile
from pathlib import Path

import torch

import fewspikes as fs
from fewspikes.models import resnet8


def main() -> None:
    torch.manual_seed(0)
    model = resnet8().eval()  # take your trained network here, and your own images below
    images = torch.rand(64, 3, 32, 32)

    for K in (4, 6, 8):
        snn = fs.convert(model, images[:1], images, K=K)
        report = fs.evaluate(snn, images, reference=model)
        print(f"K={K}: same class on {report.agreement:.1f}%, {report.spikes_per_neuron:.2f} spikes per neuron")
    print(snn.report)

    with tempfile.TemporaryDirectory() as folder:
        fs.save(snn, Path(folder) / "net.fs")
        again = fs.load(Path(folder) / "net.fs")
        print("loaded network computes the same:", torch.equal(again(images), snn(images)))


if __name__ == "__main__":
    main()
