"""What operators are for, whatever a runtime calls them: so that an int8 file and a float one can
be laid side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

CONVOLUTION, PRODUCT, RECURRENT = "convolutions", "matrix products", "recurrent layers"
BORDER, LAYOUT, NORM, SOFTMAX = "quantize and dequantize", "layout changes", "norms", "softmax"
ELEMENTWISE, POOLING, MOVING, LOOKUP = "elementwise", "pooling", "moving data", "look-ups"
GENERATED, CALLING = "generated kernels", "calling"

_NAMES: Mapping[str, tuple[str, ...]] = {
    CONVOLUTION: (
        *("conv", "convtranspose", "fusedconv", "nhwcfusedconv", "qlinearconv", "convinteger"),
        *("convolution", "deconvolution", "groupconvolution", "conv1d", "conv2d", "conv3d"),
        *("conv_transpose1d", "conv_transpose2d", "_convolution_pointwise", "mkldnn_convolution"),
        *("nhwcconv", "qconv2d_pointwise", "qconv_pointwise"),
    ),
    PRODUCT: (
        *("matmul", "fusedmatmul", "gemm", "fusedgemm", "einsum", "qlinearmatmul", "qgemm"),
        *("matmulinteger", "matmulintegertofloat", "dynamicquantizematmul", "matmulnbits"),
        *("fullyconnectedquantizedlegacy", "fullyconnectedquantized", "fullyconnectedcompressed"),
        *("fullyconnected", "linear", "addmm", "mm", "bmm", "matmulintegertofloat", "baddbmm"),
        *("_linear_pointwise", "_mkl_linear", "dynamic_linear", "rowwise_linear", "int4_linear"),
        *("attention", "multiheadattention", "qattention", "mha", "scaled_dot_product_attention"),
        *("scaleddotproductattention", "qlinear_pointwise", "baddbmm"),
    ),
    RECURRENT: (
        *("lstm", "gru", "rnn", "dynamicquantizelstm", "rnnseq", "rnncell", "lstmsequence"),
        *("grusequence", "lstmcell", "dynamic_lstm", "padded_gru", "padded_lstm", "rnn_tanh"),
    ),
    BORDER: (
        *("quantizelinear", "dequantizelinear", "dynamicquantizelinear", "fakequantize"),
        *("quantize_per_tensor", "dequantize_per_tensor", "quantize_per_channel", "decode"),
        *("dequantize_per_channel", "quantize_affine", "dequantize_affine", "quantize"),
    ),
    LAYOUT: ("reorderinput", "reorderoutput", "reorder", "transpose", "permute"),
    NORM: (
        *("layernormalization", "skiplayernormalization", "batchnormalization", "batch_norm"),
        *("layer_norm", "instancenormalization", "groupnormalization", "mvn", "lrn"),
        *("simplifiedlayernormalization", "group_norm", "rms_norm"),
    ),
    SOFTMAX: ("softmax", "qlinearsoftmax", "logsoftmax", "_softmax", "log_softmax"),
    POOLING: (
        *("maxpool", "averagepool", "globalaveragepool", "qlinearglobalaveragepool"),
        *("qlinearaveragepool", "nhwcmaxpool", "pooling", "max_pool2d", "avg_pool2d", "reduce"),
        *("adaptive_avg_pool2d", "globalmaxpool", "reducemean", "mean", "reducemax", "reducesum"),
        *("adaptiveavgpool", "max_pool1d", "avg_pool1d", "adaptive_avg_pool1d"),
    ),
    ELEMENTWISE: (
        *("add", "mul", "sub", "div", "relu", "clip", "sigmoid", "tanh", "gelu", "fastgelu"),
        *("qlinearadd", "qlinearmul", "qlinearsigmoid", "biasgelu", "quickgelu", "erf", "sqrt"),
        *("eltwise", "subgraph", "relu_", "add_", "hardtanh", "clamp", "leakyrelu", "hardswish"),
        *("hardsigmoid", "qlinearleakyrelu", "silu", "pow", "exp", "where", "cast", "convert"),
        *("relu6", "leaky_relu", "elu", "prelu"),
    ),
    LOOKUP: ("gather", "embedding", "gatherelements", "scatternd", "oneslike"),
    MOVING: (
        *("reshape", "flatten", "squeeze", "unsqueeze", "slice", "concat", "split", "pad"),
        *("qlinearconcat", "expand", "identity", "view", "cat", "shape", "shapeof", "select"),
        *("stridedslice", "copy_", "clone", "detach", "to", "contiguous", "resolve_conj", "copy"),
        *("lift_fresh", "unflatten", "narrow", "resolve_neg", "_to_copy", "memcpy"),
    ),
    CALLING: (
        *("torchdynamo cache lookup", "pregraph bytecode"),
        *("aotdispatcher runtime wrapper prologue", "torch-compiled region"),
    ),
}
_FAMILY = {name: family for family, names in _NAMES.items() for name in names}
COMPUTE = (CONVOLUTION, PRODUCT, RECURRENT)


def family(kind: str) -> str:
    """What an operator is for; its own name where that is not known."""
    name = kind.rpartition("::")[2].lower()
    if name in _FAMILY:
        return _FAMILY[name]
    return GENERATED if "fused_" in name else kind
