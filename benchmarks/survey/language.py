"""Tiny networks of transformers with random weights, as people call them."""

from collections.abc import Callable
from typing import Any

import transformers as hf
from torch import Tensor, nn

_WORDS = {"vocab_size": 64, "pad_token_id": 0}
_TEXT = {**_WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_BERT = {**_TEXT, "max_position_embeddings": 32}
_IMAGE = {"image_size": 32, "patch_size": 8}
_LLAMA = {**_TEXT, "num_key_value_heads": 2, "max_position_embeddings": 32, "use_cache": False}
_EAGER = {"attn_implementation": "eager"}
_GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}


class Logits(nn.Module):
    """The logits alone of a model that returns more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits."""
        return self.model(input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


class FromEmbeddings(nn.Module):
    """A text model that is given its words as vectors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        """The last layer's vectors."""
        return self.model(inputs_embeds=inputs_embeds).last_hidden_state  # type: ignore[no-any-return]


def build(name: str) -> nn.Module:
    """The network of that name in the survey."""
    return _MODELS[name]().eval()


def _bert(**settings: Any) -> nn.Module:
    return hf.BertModel._from_config(hf.BertConfig(**_BERT), **settings)


def _bert_classifier() -> nn.Module:
    return Logits(hf.BertForSequenceClassification._from_config(hf.BertConfig(**_BERT), **_EAGER))


def _distilbert() -> nn.Module:
    sizes = {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 32}
    config = hf.DistilBertConfig(**sizes)
    return hf.DistilBertModel._from_config(config, **_EAGER)


def _roberta() -> nn.Module:
    config = hf.RobertaConfig(**{**_BERT, "pad_token_id": 1})
    return Logits(hf.RobertaForSequenceClassification._from_config(config, **_EAGER))


def _gpt2(**settings: Any) -> nn.Module:
    return hf.GPT2Model._from_config(hf.GPT2Config(**_GPT2, **settings), **_EAGER)


def _llama() -> nn.Module:
    return hf.LlamaModel._from_config(hf.LlamaConfig(**_LLAMA), **_EAGER)


def _qwen2() -> nn.Module:
    return hf.Qwen2Model._from_config(hf.Qwen2Config(**_LLAMA), **_EAGER)


def _vit() -> nn.Module:
    return hf.ViTModel._from_config(hf.ViTConfig(**{**_TEXT, **_IMAGE}), **_EAGER)


def _whisper_encoder() -> nn.Module:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    words = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
    config = hf.WhisperConfig(**words, **sizes, num_mel_bins=16, max_source_positions=20)
    return WhisperEncoder._from_config(config, **_EAGER)


def _wav2vec2() -> nn.Module:
    convolutions = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    return hf.Wav2Vec2Model._from_config(hf.Wav2Vec2Config(**_TEXT, **convolutions, **positions), **_EAGER)


def _t5_encoder() -> nn.Module:
    config = hf.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return hf.T5EncoderModel._from_config(config, **_EAGER)


def _resnet() -> nn.Module:
    config = hf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10)
    return hf.ResNetForImageClassification(config)


def _mobilenet_v2() -> nn.Module:
    return hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config(depth_multiplier=0.25, num_labels=10))


def _mobilenet_v1() -> nn.Module:
    return hf.MobileNetV1ForImageClassification(hf.MobileNetV1Config(depth_multiplier=0.25, num_labels=10))


def _segformer() -> nn.Module:
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 32, 64], "num_attention_heads": [1, 2, 4, 8]}
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**sizes, decoder_hidden_size=32, num_labels=5))


def _mamba() -> nn.Module:
    return hf.MambaModel(
        hf.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4, use_cache=False)
    )


def _clip_vision() -> nn.Module:
    settings = {key: value for key, value in _TEXT.items() if key not in _WORDS}
    return hf.CLIPVisionModel._from_config(hf.CLIPVisionConfig(**settings, **_IMAGE), **_EAGER)


_MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert_base_model_raw_output": lambda: _bert(**_EAGER),
    "bert_seqcls_logits": _bert_classifier,
    "bert_sdpa": lambda: _bert(attn_implementation="sdpa"),
    "bert_inputs_embeds": lambda: FromEmbeddings(_bert(**_EAGER)),
    "distilbert": _distilbert,
    "roberta_seqcls": _roberta,
    "gpt2": lambda: _gpt2(use_cache=False),
    "gpt2_default_cache_raw": _gpt2,
    "llama": _llama,
    "qwen2": _qwen2,
    "vit": _vit,
    "whisper_encoder": _whisper_encoder,
    "wav2vec2": _wav2vec2,
    "t5_encoder": _t5_encoder,
    "resnet_hf": _resnet,
    "mobilenet_v2_hf": _mobilenet_v2,
    "mobilenet_v1_hf": _mobilenet_v1,
    "segformer": _segformer,
    "mamba": _mamba,
    "clip_vision": _clip_vision,
}
