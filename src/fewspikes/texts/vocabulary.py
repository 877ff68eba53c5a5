"""Whether a tokenizer fits the tables in which a network looks its tokens up."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.texts.tokens import IDS, Tokens


def check_vocabulary(model: nn.Module, tokens: Tokens, batches: Sequence[Any]) -> None:
    """Run the sentence with the largest token through a model, and look at what its tables are asked for.

    Args:
        model: the network, in eval mode.
        tokens: how the batches were made.
        batches: as `Tokens.batches` gives them.

    Raises:
        FewSpikesError: a table has fewer rows than that.
    """
    name = next(name for name, kind in tokens.inputs.items() if kind == IDS)
    named = max(
        (part[0] if isinstance(part, tuple) else part for part in batches), key=lambda one: int(one[name].max())
    )
    row = int(named[name].amax(1).argmax())
    sentence = {key: value[row : row + 1] for key, value in named.items()}
    watches = [
        module.register_forward_pre_hook(_watch(path, sentence[name], tokens.vocabulary))
        for path, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        with torch.inference_mode():
            model(**_on(sentence, model))
    except FewSpikesError:
        raise
    except Exception:  # another fault of the model, which capturing it says better
        return
    finally:
        for watch in watches:
            watch.remove()


def _watch(path: str, tokens: Tensor, vocabulary: int) -> Callable[[nn.Module, Any], None]:
    """What looks at a table before it is asked."""

    def look(table: nn.Module, given: Any) -> None:
        rows, asked = int(table.num_embeddings), given[0] if given else None  # type: ignore[arg-type]
        if not isinstance(asked, Tensor) or not asked.numel() or int(asked.max()) < rows:
            return
        if asked.shape == tokens.shape and torch.equal(asked.cpu(), tokens):
            raise FewSpikesError(
                f"the tokenizer has a vocabulary of {vocabulary:,} and gives token {int(asked.max()):,}, but the "
                f"model's table {path} has {rows:,} rows; give the tokenizer that the model was trained with"
            )
        raise FewSpikesError(
            f"the model looks up row {int(asked.max()):,} of its table {path}, which has {rows:,}; if these are places "
            "in a sentence, give a smaller --length"
        )

    return look


def _on(sentence: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The inputs where the model is."""
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    return {name: value.to(device) for name, value in sentence.items()}
