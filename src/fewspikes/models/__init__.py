"""Trained networks: from timm, torchvision and the user's own files, and those of the paper and our own for CIFAR."""

from fewspikes.models.cifar_resnet import (
    CIFAR_PREPROCESSING,
    CifarResNet,
    resnet8,
    resnet14,
    resnet20,
    resnet44,
    resnet50,
)
from fewspikes.models.efficientnet_cifar import CIFAR_EFFICIENTNET_PREPROCESSING, CifarEfficientNet, cifar_efficientnet
from fewspikes.models.efficientnet_lite import LITE0_PREPROCESSING, efficientnet_lite0, lite0_calibration
from fewspikes.models.loading import LoadedModel, load_model
from fewspikes.models.photographs import imagenet_class_names, photographs
from fewspikes.models.sentences import SentenceEncoder
from fewspikes.models.weights import load_weights

__all__ = [
    "CIFAR_EFFICIENTNET_PREPROCESSING",
    "CIFAR_PREPROCESSING",
    "LITE0_PREPROCESSING",
    "CifarEfficientNet",
    "CifarResNet",
    "LoadedModel",
    "SentenceEncoder",
    "cifar_efficientnet",
    "efficientnet_lite0",
    "imagenet_class_names",
    "lite0_calibration",
    "load_model",
    "load_weights",
    "photographs",
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet44",
    "resnet50",
]
