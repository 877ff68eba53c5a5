"""Convert a trained SiLU network, see where accuracy goes, and let its code learn. Takes some minutes.

DIR holds CIFAR-10 as Parquet files in the Hugging Face layout, or as class folders.

python examples/few_spikes.py DIR
"""

import argparse
from pathlib import Path

import torch

import fewspikes as fs
from fewspikes.images import loader, open_images
from fewspikes.models import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=2.0, help="of distilling")
    parser.add_argument("--images", type=int, default=2000, help="to measure on")
    arguments = parser.parse_args()
    loaded = load_model("fewspikes:cifar_efficientnet")
    assert loaded.preprocessing is not None
    train = loader(open_images(arguments.folder, "train", loaded.preprocessing, 10, limit=4096), 64)
    test = loader(open_images(arguments.folder, "evaluation", loaded.preprocessing, 10, limit=arguments.images), 250)

    # Every site is fitted to what it sees on the training images; labels are not used.
    snn = fs.convert(loaded.model, torch.zeros(1, 3, 32, 32), train, K=6, spike_price=0.01)
    print(snn.report)  # its last lines say where accuracy went; snn.report.worst(10) has more of them
    print("calibrated:", fs.evaluate(snn, test, loaded.model), sep="\n")

    better = fs.distil(snn, train, minutes=arguments.minutes)
    print("distilled:", fs.evaluate(better, test, loaded.model), sep="\n")
    fs.save(better, "cifar_efficientnet.fs", loaded.preprocessing.to_json())


if __name__ == "__main__":
    main()
