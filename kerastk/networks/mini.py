"""The base that ships with kerastk: a small residual network for small photos."""

import keras

# Of each stage: filters, and how many residual blocks. Each stage but the first halves its maps, as does the stem.
STEM, STAGES, WIDTH = 32, ((16, 3), (48, 3), (96, 4), (128, 2)), 512


def mini(pixels: keras.KerasTensor) -> keras.Model:
    """The network without a head: (batch, size, size, 3) float32 in [-1, 1] -> (batch, 512) pooled features.

    Blocks of two 3 x 3 convolutions with the identity beside them (He et al. 2015, arXiv:1512.03385); a 1 x 1
    convolution widens what is averaged. 1.4 million weights and 97 million multiply-adds at 64 pixels.

    >>> mini(keras.Input((64, 64, 3))).output.shape
    (None, 512)
    """
    values = _active(_conv(pixels, STEM, 3, 2, "stem"), "stem")
    for stage, (filters, blocks) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            values = _block(values, filters, stride, f"stage{stage}_block{block}")
    values = _active(_conv(values, WIDTH, 1, 1, "wide"), "wide")
    features = keras.layers.GlobalAveragePooling2D(name="mean")(values)
    return keras.Model(keras.utils.get_source_inputs(pixels), features, name="mini")


def _block(values: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    short = values
    if stride > 1:
        # All pixels count for the shortcut, not each fourth one alone (He et al. 2018, arXiv:1812.01187).
        short = keras.layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")(short)
    if short.shape[-1] != filters:
        short = _conv(short, filters, 1, 1, f"{name}_short")
    inner = _active(_conv(values, filters, 3, stride, f"{name}_first"), f"{name}_first")
    inner = _conv(inner, filters, 3, 1, f"{name}_second")
    return _active(keras.layers.Add(name=f"{name}_add")([inner, short]), name)


def _conv(values: keras.KerasTensor, filters: int, size: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution and its normalisation."""
    convolved = keras.layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(values)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(convolved)


def _active(values: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(name=f"{name}_relu")(values)
