"""A small VGG with max pools, trained on CIFAR-10 by `benchmarks/train_vgg.py`."""

from itertools import pairwise
from pathlib import Path

from torch import nn

from fewspikes.images import Preprocessing
from fewspikes.models.weights import load_weights

WEIGHTS = Path(__file__).parent / "data" / "vgg.safetensors"  # its metadata say top1 and how it was made
PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
_WIDTHS = (16, 32, 64, 128)


def vgg(classes=10):
    """Four times two 3x3 convolutions and a 2x2 max pool, then a linear layer; untrained, for 32x32 images."""
    stages = [layer for inputs, outputs in pairwise((3, *_WIDTHS)) for layer in _stage(inputs, outputs)]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(4 * _WIDTHS[-1], classes))


def trained_vgg():
    """The network with its trained weights, in eval mode."""
    model = vgg()
    load_weights(model, WEIGHTS)
    return model.eval()


def _stage(inputs, outputs):
    return *_conv(inputs, outputs), *_conv(outputs, outputs), nn.MaxPool2d(2)


def _conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
