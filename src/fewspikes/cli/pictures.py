"""What --size leaves open of a network that does not say it itself: how many colours, and whether it takes pictures."""

import torch
from torch import nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.functions import is_elementwise
from fewspikes.graph.graph import INPUT, SITE, Graph, Node


def channels(model: nn.Module, height: int, width: int) -> int:
    """Colours of a picture for a network, by its first layer with weights; 3 where that does not tell."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
        if isinstance(module, nn.Linear):
            return 1 if module.in_features == height * width else 3
    return 3


def numbers_for(colours: int) -> str:
    """What --mean and --std take each, in words."""
    return "1 number" if colours == 1 else f"{colours} numbers with commas between"


def check_colours(model: nn.Module, example: torch.Tensor, name: str) -> None:
    """Raise FewSpikesError for a network that does not run because it takes another number of colours.

    Args:
        model: in eval mode.
        example: a batch of pictures, with as many colours as --mean has numbers.
        name: of the network, for the message.
    """
    wanted, given = channels(model, *example.shape[-2:]), example.shape[1]
    if wanted == given:
        return
    try:
        with torch.inference_mode():
            model(example.clone())
    except Exception:
        raise FewSpikesError(
            f"{name} takes pictures of {wanted} channels, and the mean and std of their pixels are of {given}; give "
            f"--mean and --std with {numbers_for(wanted)}"
        ) from None


def check_takes_pictures(graph: Graph, example: torch.Tensor, name: str) -> None:
    """Raise FewSpikesError for a network that takes a picture for rows of numbers.

    Args:
        graph: of the network, captured or converted.
        example: a batch of pictures.
        name: of the network, for the message.
    """
    same: set[str] = set()  # pictures still, element by element
    for node in graph:
        if node.operator == INPUT or (same.intersection(node.reads) and _is_elementwise(node)):
            same.add(node.name)
        elif same.intersection(node.reads) and any(_is_matrix(graph[other], example) for other in node.reads):
            raise FewSpikesError(_no_pictures(node, name, example))


def _is_elementwise(node: Node) -> bool:
    return node.operator == SITE or is_elementwise(node.operator)


def _is_matrix(node: Node, example: torch.Tensor) -> bool:
    """Whether it multiplies rows as long as a picture is wide; the weights of pictures have more axes."""
    return node.shape is not None and len(node.shape) == 2 and example.shape[-1] in node.shape


def _no_pictures(node: Node, name: str, example: torch.Tensor) -> str:
    size = "x".join(map(str, example.shape[1:]))
    return (
        f"--size is for pictures, and {name} multiplies each row of one ({size}) by a matrix ({node.where}); "
        f"give --shape {example.shape[-1]} for inputs of so many numbers"
    )
