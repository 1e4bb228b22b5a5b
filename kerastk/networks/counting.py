"""How many multiplications with an addition a layer does for one item: those of matrix products and convolutions.

What works number by number (activations, normalisation, pooling) counts as none, as in the figures that papers give.
"""

import math
from collections.abc import Callable
from typing import Any

import keras

from kerastk.networks.calls import Call, Values

# Number by number, and each number stays where it is; with several inputs, those are joined place by place.
POINTWISE = {
    "Abs", "Absolute", "Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average", "BatchNormalization",
    "Cast", "Clip", "Concatenate", "Copy", "CustomScaleLayer", "Divide", "Dropout", "ELU", "Elu", "Equal", "Erf", "Exp",
    "GaussianDropout", "GaussianNoise", "Gelu", "Greater", "GroupNormalization", "HardSigmoid", "HardSilu", "Identity",
    "LayerNormalization", "LayerScale", "LeakyReLU", "LeakyRelu", "Less", "Log", "LogicalAnd", "LogicalNot",
    "LogicalOr", "Masking", "Maximum", "Minimum", "Multiply", "Negative", "Normalization", "NotEqual", "PReLU", "Power",
    "RMSNormalization", "ReLU", "Relu", "Relu6", "Rescaling", "Rsqrt", "Selu", "Sigmoid", "Silu", "Softmax", "Softplus",
    "SpatialDropout1D", "SpatialDropout2D", "Sqrt", "Square", "StochasticDepth", "StopGradient", "Subtract", "Tanh",
    "TrueDivide", "UnitNormalization", "Where",
}  # fmt: skip
_MOVING = {
    "Amax", "Amin", "Argmax", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "Cropping1D", "Cropping2D",
    "DepthToSpace", "Embedding", "ExpandDims", "Flatten", "Flip", "GetItem", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "Independent", "InputLayer", "Max",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Mean", "Min", "OneHot", "Pad", "Permute", "RepeatVector",
    "Reshape", "SpaceToDepth", "Split", "Squeeze", "Stack", "Sum", "Swapaxes", "Take", "Transpose", "UpSampling1D",
    "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D",
}  # fmt: skip


def multiply_adds(call: Call) -> int | None:
    """What a layer or an operation of `keras.ops` does at one place of a network; None where its kind is not known.

    Along the free axis of a sequence one step is counted; maps of free height or width have no number.
    """
    kind = type(call.operation).__name__
    if kind in POINTWISE or kind in _MOVING:
        return 0
    return _COUNTED[kind](call.operation, call) if kind in _COUNTED else None


def _at_places_of_outputs(layer: keras.Layer, call: Call) -> int | None:
    return _product(_places(layer, call.outputs[0]), _matrices(layer))


def _at_places_of_inputs(layer: keras.Layer, call: Call) -> int | None:
    return _product(_places(layer, call.inputs[0]), _matrices(layer))


def _recurrent(layer: keras.Layer, call: Call) -> int:
    cell = layer.cell
    return _steps(call) * sum(math.prod(each.shape) for each in (cell.kernel, cell.recurrent_kernel))


def _both_ways(layer: keras.Layer, call: Call) -> int | None:
    ways = (layer.forward_layer, layer.backward_layer)
    known = all(type(each).__name__ in _CELLS for each in ways)
    return sum(_recurrent(each, call) for each in ways) if known else None


def _character_convolutions(layer: keras.Layer, call: Call) -> int:
    return _steps(call) * sum(_matrices(each) for each in layer.convolutions)


def _paths(layer: keras.Layer, call: Call) -> int:
    """A CRF's sums over all paths: a product with the transitions for each word, there and back."""
    return 2 * _steps(call) * layer.tags**2


_CELLS = ("GRU", "LSTM", "SimpleRNN")
_COUNTED: dict[str, Callable[[Any, Call], int | None]] = {
    **dict.fromkeys(
        (
            "Conv1D", "Conv2D", "Conv3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "Maxout", "SeparableConv1D",
            "SeparableConv2D",
        ),
        _at_places_of_outputs,
    ),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _at_places_of_inputs),
    **dict.fromkeys(_CELLS, _recurrent),
    "Bidirectional": _both_ways,
    "CharacterCNN": _character_convolutions,
    "CharacterLSTM": lambda layer, call: _both_ways(layer.recurrent, call),
    "CRF": _paths,
}  # fmt: skip


def _matrices(layer: keras.Layer) -> int:
    """Numbers in a layer's kernels; a bias has one axis."""
    return sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)


def _places(layer: keras.Layer, values: Values) -> int | None:
    """At how many places of an item a kernel is applied."""
    is_first = getattr(layer, "data_format", None) == "channels_first"
    places = values.shape[2:] if is_first else values.shape[1:-1]
    if len(places) > 1 and None in places:
        return None
    return math.prod(each or 1 for each in places)


def _steps(call: Call) -> int:
    return call.inputs[0].shape[1] or 1


def _product(*factors: int | None) -> int | None:
    return None if None in factors else math.prod(factors)
