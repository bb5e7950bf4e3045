"""Small configurations of Hugging Face transformers' own model classes, with random weights.

Nothing is downloaded. Wherever the class can be traced it is taken as it is, with its dict of
inputs and its output object; only what selects items by value in its head (T5, BART) gets a head of
ours.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import MissingExtra
from petra.tasks.inputs import Inputs
from petra.testing.architectures.base import CLASSES, Draw, Problem, classifier, normal
from petra.testing.architectures.tokens import TOKENS, VOCABULARY, token_ids

IMAGE_SIZE = 32
# As wide as a network of a few layers wants its random weights, where the library's default is for
# hundreds of inputs.
STD = 0.15
ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": STD,
}
TEXT = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, **ENCODER}
IMAGES: dict[str, Any] = {"image_size": IMAGE_SIZE, "patch_size": 8, **ENCODER}


def library() -> Any:
    """The transformers package. Raises MissingExtra."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("transformers", extra="text") from error


def made(family: str, purpose: str, **config: object) -> Callable[[], nn.Module]:
    """A maker of `{family}{purpose}` under its configuration class `{family}Config`."""

    def make() -> nn.Module:
        transformers = library()
        model: nn.Module = getattr(transformers, family + purpose)(
            getattr(transformers, f"{family}Config")(num_labels=CLASSES, **config)
        )
        return model

    return make


def dict_of(name: str, draw: Callable[[torch.Generator, int], Tensor]) -> Draw:
    return lambda generator, n: {name: draw(generator, n)}


def masked_text(generator: torch.Generator, n: int) -> Inputs:
    """Token ids with an attention mask that hides a random tail, at most half."""
    length = torch.randint(TOKENS // 2, TOKENS + 1, (n, 1), generator=generator)
    return {
        "input_ids": token_ids(generator, n),
        "attention_mask": (torch.arange(TOKENS)[None] < length).to(torch.int64),
    }


def vision(family: str, *, size: int = IMAGE_SIZE, **config: object) -> Problem:
    draw = dict_of("pixel_values", normal(3, size, size))
    return classifier(made(family, "ForImageClassification", **config), draw, gain=1.0)


def text(family: str, **config: object) -> Problem:
    return classifier(made(family, "ForSequenceClassification", **config), masked_text, gain=1.0)


# -- images ----------------------------------------------------------------------------------------


def resnet() -> Problem:
    return vision(
        "ResNet", embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic"
    )


def regnet() -> Problem:
    return vision("RegNet", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8)


def convnext() -> Problem:
    return vision(
        "ConvNext", num_stages=2, hidden_sizes=[16, 32], depths=[1, 2], image_size=IMAGE_SIZE,
        initializer_range=STD, layer_scale_init_value=1.0,
    )  # fmt: skip


def mobilenet_v2() -> Problem:
    return vision(
        "MobileNetV2", depth_multiplier=0.35, output_stride=8, image_size=IMAGE_SIZE,
        initializer_range=STD,
    )  # fmt: skip


def efficientnet() -> Problem:
    return vision(
        "EfficientNet", image_size=IMAGE_SIZE, width_coefficient=0.05, depth_coefficient=1.0,
        hidden_dim=64, in_channels=[32, 320, 480], out_channels=[320, 480, 640],
        kernel_sizes=[3, 3, 5], strides=[1, 2, 2], num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 4, 4], initializer_range=STD,
    )  # fmt: skip


def vit() -> Problem:
    return vision("ViT", **IMAGES)


def beit() -> Problem:
    return vision("Beit", use_relative_position_bias=True, layer_scale_init_value=1.0, **IMAGES)


def swin() -> Problem:
    return vision(
        "Swin", image_size=IMAGE_SIZE, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
        window_size=4, mlp_ratio=2.0, initializer_range=STD,
    )  # fmt: skip


def mobilevit() -> Problem:
    return vision(
        "MobileViT", size=64, image_size=64, hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 16, 16, 24, 24, 32, 64], initializer_range=STD / 4,
    )  # fmt: skip


def poolformer() -> Problem:
    return vision(
        "PoolFormer", num_encoder_blocks=2, depths=[1, 2], hidden_sizes=[16, 32],
        patch_sizes=[7, 3], strides=[4, 2], padding=[2, 1], layer_scale_init_value=1.0,
        mlp_ratio=2.0, initializer_range=STD,
    )  # fmt: skip


def segformer() -> Problem:
    return vision(
        "Segformer", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32],
        patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        initializer_range=STD,
    )  # fmt: skip


def cvt() -> Problem:
    return vision(
        "Cvt", patch_sizes=[7, 3], patch_stride=[4, 2], patch_padding=[2, 1], embed_dim=[16, 32],
        num_heads=[1, 2], depth=[1, 2], mlp_ratio=[2.0, 2.0], attention_drop_rate=[0.0, 0.0],
        drop_rate=[0.0, 0.0], drop_path_rate=[0.0, 0.0], qkv_bias=[True, True],
        cls_token=[False, True], qkv_projection_method=["dw_bn", "dw_bn"], kernel_qkv=[3, 3],
        padding_kv=[1, 1], stride_kv=[2, 2], padding_q=[1, 1], stride_q=[1, 1],
        initializer_range=STD,
    )  # fmt: skip


# -- text ------------------------------------------------------------------------------------------


def bert() -> Problem:
    return text("Bert", **TEXT)


def roberta() -> Problem:
    return text("Roberta", **TEXT)


def distilbert() -> Problem:
    return text(
        "DistilBert", vocab_size=VOCABULARY, max_position_embeddings=32, dim=32, n_layers=2,
        n_heads=4, hidden_dim=64, initializer_range=STD,
    )  # fmt: skip


def albert() -> Problem:
    """All layers are one layer."""
    return text("Albert", embedding_size=16, **TEXT)


def deberta_v2() -> Problem:
    """Disentangled attention: relative positions meet content on both sides."""
    return text(
        "DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8,
        share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
        pooler_hidden_size=32, **TEXT,
    )  # fmt: skip


def squeezebert() -> Problem:
    """Grouped 1x1 convolutions in place of linear layers."""
    return text("SqueezeBert", embedding_size=32, **TEXT)


def gpt2() -> Problem:
    """Linear layers that are stored transposed (`Conv1D`), one for queries, keys and values."""
    return text(
        "GPT2", vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=4,
        pad_token_id=0, use_cache=False, bos_token_id=1, eos_token_id=2, initializer_range=STD,
    )  # fmt: skip


def llama() -> Problem:
    """Rotary positions, grouped keys and values, RMSNorm, gated MLP."""
    return text("Llama", num_key_value_heads=2, pad_token_id=0, use_cache=False, **TEXT)


def qwen2() -> Problem:
    return text("Qwen2", num_key_value_heads=2, pad_token_id=0, use_cache=False, **TEXT)


class EncoderDecoder(nn.Module):
    """An encoder-decoder whose decoded states are averaged and classified."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model, self.classifier = model, nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        states = self.model(
            input_ids=input_ids, decoder_input_ids=decoder_input_ids
        ).last_hidden_state
        logits: Tensor = self.classifier(states.mean(1))
        return logits


def _translation(generator: torch.Generator, n: int) -> Inputs:
    return {
        "input_ids": token_ids(generator, n),
        "decoder_input_ids": token_ids(generator, n)[:, :6],
    }


def t5() -> Problem:
    """Relative position biases computed once and shared; one embedding for both sides."""
    make = made(
        "T5",
        "Model",
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        use_cache=False,
    )
    return classifier(lambda: EncoderDecoder(make(), 32), _translation, gain=1.0)


def bart() -> Problem:
    make = made(
        "Bart", "Model", vocab_size=VOCABULARY, max_position_embeddings=32, d_model=32,
        encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_attention_heads=4, use_cache=False, init_std=STD,
    )  # fmt: skip
    return classifier(lambda: EncoderDecoder(make(), 32), _translation, gain=1.0)


# -- sound and time series -------------------------------------------------------------------------


def whisper() -> Problem:
    """The encoder, with its fixed length of input, and a classifier."""
    make = made(
        "Whisper", "ForAudioClassification", vocab_size=VOCABULARY, num_mel_bins=8,
        max_source_positions=16, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64,
        classifier_proj_size=32, init_std=STD, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    return classifier(make, dict_of("input_features", normal(8, 32)), gain=1.0)


def wav2vec2() -> Problem:
    """Raw waveforms; a grouped positional convolution whose weight is normalised on the fly."""
    make = made(
        "Wav2Vec2", "ForSequenceClassification", vocab_size=VOCABULARY, conv_dim=[16, 16],
        conv_stride=[5, 2], conv_kernel=[10, 3], num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4, apply_spec_augment=False, layerdrop=0.0,
        classifier_proj_size=32, **ENCODER,
    )  # fmt: skip
    return classifier(make, dict_of("input_values", normal(320)), gain=1.0)


def patchtst() -> Problem:
    """Patches of each channel of a time series, with BatchNorm inside a transformer."""
    make = made(
        "PatchTST", "ForClassification", num_input_channels=2, context_length=32, patch_length=4,
        patch_stride=4, num_hidden_layers=2, d_model=32, num_attention_heads=4, ffn_dim=64,
        num_targets=CLASSES, init_std=STD,
    )  # fmt: skip
    return classifier(make, dict_of("past_values", normal(32, 2)), gain=1.0)
