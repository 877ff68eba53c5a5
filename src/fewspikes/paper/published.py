"""The numbers that the paper states, and where.

Source: C. Stöckl and W. Maass, Nature Machine Intelligence 3, 230-238 (2021); its tables and text.
"""

from dataclasses import dataclass
from typing import Any

RELU_SETTING: dict[str, Any] = {"K": 10, "alpha": 25.0, "rounding": "down"}
MSE_MAIN, MSE_OUTSIDE = 0.0023, 0.0064  # of SiLU with K=16, section 1.2.1: in [-2, 2], and outside of it
SILU_INPUTS, RELU_INPUTS = (-0.112, 1.99), (-0.36970, 2.19)  # mean and variance, Fig. 7
SILU_SHARE = 99.97  # percent of EfficientNet-B7's activations, section 1.2.1
SPIKES_PER_NEURON = {"silu": 2.0, "relu": 1.5}  # Discussion
RECORDINGS = "https://celltypes.brain-map.org/experiment/electrophysiology/561467633"  # of Fig. 1


@dataclass(frozen=True)
class TableRow:
    """A row of Table 1 or 2. Accuracies in percent; neurons and spikes per image; layers as the paper counts them."""

    model: str
    ann_top1: float
    snn_top1: float
    layers: int
    neurons: int
    spikes: float
    ann_top5: float | None = None
    snn_top5: float | None = None
    parameters: float | None = None


TABLE_1 = (
    TableRow("EfficientNet-B7", 85.0, 83.57, 218, 259_000_000, 554.9e6, 97.2, 96.7, 66e6),
    TableRow("ResNet50", 75.22, 75.10, 50, 9_600_000, 14.045e6, 92.4, 92.36, 26e6),
)
TABLE_2 = (
    TableRow("ResNet50", 92.99, 92.42, 50, 475_136, 647_245),
    TableRow("ResNet20", 91.58, 91.45, 20, 188_416, 261_779),
    TableRow("ResNet14", 90.49, 90.39, 14, 131_072, 190_107),
    TableRow("ResNet8", 87.22, 87.05, 8, 73_728, 103_753),
)


@dataclass(frozen=True)
class Method:
    """A row of Table 3: another conversion. Accuracies in percent; steps as its authors count them, None unknown."""

    data: str
    network: str
    source: str
    ann_top1: float
    snn_top1: float
    steps: int | None


TABLE_3 = (
    Method("CIFAR-10", "ResNet-20", "Han et al. 2020", 91.47, 91.36, 2048),
    Method("CIFAR-10", "ResNet-20", "Rathi et al. 2020", 93.15, 92.94, 2500),
    Method("CIFAR-10", "BinaryConnect", "Rueckauer et al. 2017", 91.91, 90.85, None),
    Method("CIFAR-10", "VGG-16", "Sengupta et al. 2019", 91.7, 91.46, 2500),
    Method("CIFAR-10", "ResNet-20", "Sengupta et al. 2019", 89.1, 87.46, 2500),
    Method("CIFAR-10", "ResNet-20", "Stöckl and Maass 2021", 91.58, 91.45, 200),
    Method("CIFAR-10", "ResNet-50", "Stöckl and Maass 2021", 92.99, 92.42, 500),
    Method("ImageNet", "ResNet-34", "Han et al. 2020", 70.64, 69.89, 4096),
    Method("ImageNet", "ResNet-34", "Rathi et al. 2020", 70.2, 65.1, 2500),
    Method("ImageNet", "VGG-16", "Rueckauer et al. 2017", 63.89, 49.61, 400),
    Method("ImageNet", "Inception-V3", "Rueckauer et al. 2017", 76.12, 74.6, 550),
    Method("ImageNet", "VGG-16", "Sengupta et al. 2019", 70.52, 69.96, 2500),
    Method("ImageNet", "ResNet-34", "Sengupta et al. 2019", 70.69, 65.47, 2500),
    Method("ImageNet", "ResNet-50", "Stöckl and Maass 2021", 75.22, 75.10, 500),
    Method("ImageNet", "EfficientNet-B7", "Stöckl and Maass 2021", 85.0, 83.57, 3488),
)
HYSTERESIS = (
    "Yousefzadeh et al. 2019: ReLU by hysteresis quantisation; the paper names it and gives no numbers: it waits to be "
    "tested on larger networks"
)
RESNET11_SPIKES = {"converted": 8e6, "directly trained": None}  # Lee et al. 2019, section 1.4: "more than 8 million"
