"""Networks that give a sentence one vector, from folders of sentence-transformers."""

import json
from pathlib import Path

from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import reason_of

MODULES = "modules.json"
_MEAN, _FIRST = "pooling_mode_mean_tokens", "pooling_mode_cls_token"


class SentenceEncoder(nn.Module):
    """A transformer whose vectors become one: their mean over the tokens of the sentence, or the first.

    Args:
        transformer: returns last_hidden_state, [batch, tokens, numbers].
        mean: the mean over the tokens that the mask lets through; False: the first token's vector.
        normalized: the vector has length 1.
    """

    def __init__(self, transformer: nn.Module, mean: bool = True, normalized: bool = True) -> None:
        super().__init__()
        self.transformer, self.mean, self.normalized = transformer, mean, normalized
        self.config = getattr(transformer, "config", None)

    main_input_name = "input_ids"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The sentence's vector, [batch, numbers]; `attention_mask`: 1 for each token, 0 for padding."""
        x = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(x.dtype)
        pooled = (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9) if self.mean else x[:, 0]
        return nn.functional.normalize(pooled, dim=1) if self.normalized else pooled


def with_pooling(transformer: nn.Module, folder: Path) -> nn.Module:
    """The transformer with what the folder says becomes of its vectors; as it is where it says nothing.

    Raises:
        FewSpikesError: modules without an equal here.
    """
    if not (folder / MODULES).is_file():
        return transformer
    try:
        modules = json.loads((folder / MODULES).read_text())
        kinds = {str(entry["type"]).rpartition(".")[2]: folder / str(entry["path"]) for entry in modules}
        pooling = json.loads((kinds["Pooling"] / "config.json").read_text()) if "Pooling" in kinds else {}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise FewSpikesError(f"{folder / MODULES} does not say how vectors are pooled: {reason_of(error)}") from None
    others = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    modes = {name for name, chosen in pooling.items() if name.startswith("pooling_mode") and chosen is True}
    if others or len(modes) != 1 or not modes <= {_MEAN, _FIRST}:
        found = ", ".join(sorted(others or modes)) or "no pooling"
        raise FewSpikesError(
            f"the folder {folder} makes a vector with {found}, which has no equal here; write a module around the "
            "transformer and give it as file.py:function"
        )
    return SentenceEncoder(transformer, modes == {_MEAN}, "Normalize" in kinds).eval()
