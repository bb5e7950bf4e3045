"""A zoo of small architectures with random weights, to try methods on.

``ARCHITECTURES.get(name)()`` is a model in evaluation mode and a task of random data for it, the
same every time. Those of the module `hugging_face` are classes of transformers and need the extra
``text``. A new architecture is one function and one name here.
"""

from __future__ import annotations

from collections.abc import Callable

from petra.core.registry import Registry
from petra.testing.architectures.base import Problem

_BUILDERS = {
    "images": (
        *(
            "cifar_resnet",
            "se_resnet",
            "resnext",
            "separable",
            "group_norm",
            "densenet",
            "unet",
            "cnn_3d",
        ),
        "functional_calls",
    ),
    "series": ("cnn_1d", "gru", "lstm", "conv_gru"),
    "reference": (
        *("inception_time", "lstm_fcn", "tcn", "patch_transformer"),
        *("event_gru", "event_transformer"),
    ),
    "masked": ("padding_mask", "causal_encoder", "encoder_decoder", "captioning", "cached_bias"),
    "gated": (
        *("neighbour_gate", "wide_gate", "single_gate", "cbam", "global_context", "shuffle"),
        *("gated_conv", "mixture"),
    ),
    "normed": (
        *(
            "preact_resnet",
            "batch_statistics",
            "single_group",
            "standardised",
            "normed_tcn",
            "spectral",
        ),
        "autoencoder",
    ),
    "loops": ("lstm_cells", "gru_cells", "hand_written_cell", "time_major", "state_space"),
    "queries": (
        *(
            "class_token",
            "learned_queries",
            "relative_bias",
            "decoder",
            "mixer",
            "fourier",
            "einsums",
        ),
        "data_parallel",
    ),
    "tokens": ("mlp", "fused_qkv", "torch_transformer", "multi_output", "shared_weights"),
    "forecasting": ("mamba", "patchtsmixer", "time_series_transformer"),
    "hugging_face": (
        *("resnet", "regnet", "convnext", "mobilenet_v2", "efficientnet", "poolformer"),
        *("vit", "beit", "swin", "mobilevit", "segformer", "cvt"),
        *(
            "bert",
            "roberta",
            "distilbert",
            "albert",
            "deberta_v2",
            "squeezebert",
            "gpt2",
            "llama",
            "qwen2",
        ),
        *("t5", "bart", "whisper", "wav2vec2", "patchtst"),
    ),
}

ARCHITECTURES: Registry[Callable[[], Problem]] = Registry(
    "architecture",
    {
        name.replace("_", "-"): f"petra.testing.architectures.{module}:{name}"
        for module, names in _BUILDERS.items()
        for name in names
    },
)
