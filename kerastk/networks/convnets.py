"""Networks that are trained from random weights: the classical ones for small images, and builders of any of them.

Flat on their input as those of `networks.classifier`, with the same names: `photo` (input), `features` (what the head
sees), `head_dropout`, `head` (logits), `probabilities`.
"""

import contextlib
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kerastk.errors import RecipeError
from kerastk.networks import bases
from kerastk.networks.activations import activation as activation_layer
from kerastk.networks.classifier import with_head
from kerastk.networks.initializers import initializer

NORMALISATIONS = ("batch", "layer", "group", "none")
POOLINGS = ("max", "average", "stride")
# Of the first kernel of a `fast` network, pixels.
WHITENED = 2
_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class Style:
    """What the layers of a network are made of; a network has its own, and an option replaces it.

    `pooling` is None where a network halves its maps by the steps of convolutions that it has anyway.
    """

    activation: str = "relu"
    normalisation: str = "batch"
    pooling: str | None = None
    initialiser: str = "he"


@dataclass(frozen=True, kw_only=True)
class Net:
    """A row of `NETS`: `build(values, layers, number)` takes scaled images to features, (batch, features).

    `number` is what stands for N in the network's name, one of `numbers` where there are any. `image_size` is the side
    that it was made for, `smallest` the least that it can halve so often, in pixels.
    """

    build: Callable[[keras.KerasTensor, "Layers", int], keras.KerasTensor]
    style: Style
    image_size: int
    smallest: int
    source: str
    numbers: tuple[int, ...] = ()


class Layers:
    """Makes the layers of one network in its style, each with a name of its own that begins with `prefix`."""

    def __init__(self, style: Style, prefix: str = ""):
        self.style, self.prefix = style, prefix
        self._counts: dict[str, int] = {}

    def name(self, kind: str) -> str:
        """The next name of a kind: conv_1, conv_2, ..."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{self.prefix}{kind}_{self._counts[kind]}"

    def conv(
        self, values: keras.KerasTensor, filters: int, size: int = 3, *, stride: int = 1, padding: str = "same",
        bias: bool | None = None,
    ) -> keras.KerasTensor:  # fmt: skip
        """A convolution alone; it has a bias where no normalisation follows."""
        bias = self.style.normalisation == "none" if bias is None else bias
        return keras.layers.Conv2D(
            filters, size, strides=stride, padding=padding, use_bias=bias,
            kernel_initializer=initializer(self.style.initialiser), name=self.name("conv"),
        )(values)  # fmt: skip

    def norm(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """The normalisation of the style, if it has one."""
        kind = self.style.normalisation
        if kind == "none":
            return values
        name = self.name("norm")
        if kind == "batch":
            return keras.layers.BatchNormalization(name=name)(values)
        if kind == "layer":
            return keras.layers.LayerNormalization(name=name)(values)
        # Wu and He 2018, arXiv:1803.08494.
        groups = np.gcd(_GROUPS, values.shape[-1])
        return keras.layers.GroupNormalization(int(groups), name=name)(values)

    def active(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """The activation of the style."""
        layer = activation_layer(self.style.activation)
        layer.name = self.name(self.style.activation)
        return layer(values)

    def block(self, values: keras.KerasTensor, filters: int, size: int = 3, **conv: object) -> keras.KerasTensor:
        """Convolution, normalisation, activation."""
        return self.active(self.norm(self.conv(values, filters, size, **conv)))

    def halved(self, values: keras.KerasTensor, *, size: int = 2) -> keras.KerasTensor:
        """Height and width halved, by the pooling of the style."""
        if self.style.pooling == "stride":
            return self.block(values, values.shape[-1], max(size, 3), stride=2)
        kind = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}[self.style.pooling]
        return kind(size, strides=2, name=self.name("pool"))(values)

    def dense(self, values: keras.KerasTensor, units: int) -> keras.KerasTensor:
        """A dense layer and its activation."""
        layer = keras.layers.Dense(
            units, kernel_initializer=initializer(self.style.initialiser), name=self.name("dense")
        )
        return self.active(layer(values))

    def dropped(self, values: keras.KerasTensor, share: float) -> keras.KerasTensor:
        """Dropout."""
        return keras.layers.Dropout(share, name=self.name("dropout"))(values) if share else values

    def flat(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """Maps as one vector."""
        return keras.layers.Flatten(name=self.name("flat"))(values)

    def averaged(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """The mean of each map."""
        return keras.layers.GlobalAveragePooling2D(name=self.name("mean"))(values)


def convnet(
    name: str,
    shape: tuple[int, int, int],
    *,
    classes: int,
    dropout: float,
    activation: str | None = None,
    normalisation: str | None = None,
    pooling: str | None = None,
    initialiser: str | None = None,
    members: int = 1,
) -> keras.Model:
    """An uncompiled classifier: (batch, *shape) uint8 images -> (batch, classes) float32 probabilities.

    `name` is one of NETS, its number filled in, such as `resnet20` or `wrn-16-4`. What is None is as the network's
    authors have it. With several `members` so many such networks stand side by side, each with first weights of its
    own, and the logits are the mean of theirs (see `networks.members`).

    Raises:
        RecipeError: no such network, images that are too small for it, or a pooling that it does not have.

    >>> convnet("resnet20", (32, 32, 3), classes=10, dropout=0.0).count_params()
    271098
    """
    net, number = find_net(name)
    if min(shape[:2]) < net.smallest:
        raise RecipeError(f"image_size must be at least {net.smallest} with {name}; got {min(shape[:2])}.")
    if pooling is not None and net.style.pooling is None:
        takers = ", ".join(each for each, row in NETS.items() if row.style.pooling is not None)
        raise RecipeError(f"{name} halves its maps by convolutions and takes no pooling; {takers} do.")
    style = Style(
        activation=activation or net.style.activation,
        normalisation=normalisation or net.style.normalisation,
        pooling=pooling or net.style.pooling,
        initialiser=initialiser or net.style.initialiser,
    )
    photo = keras.Input(shape, dtype="uint8", name="photo")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="scaling")(photo)
    prefixes = [""] if members == 1 else [f"member_{each}_" for each in range(1, members + 1)]
    found = [net.build(scaled, Layers(style, prefix), number) for prefix in prefixes]
    features = found[0]
    if members > 1:
        # So scaled, each member's rows of the head's kernel are what they would be in a network of its own.
        together = keras.layers.Concatenate(name="together")(found)
        features = keras.layers.Rescaling(1 / members, dtype="float32", name="members")(together)
    return with_head(photo, features, classes, dropout)


def find_net(name: str) -> tuple[Net, int]:
    """The row of NETS for a name, and the number in it (0 where it has none). Raises RecipeError."""
    for pattern, net in NETS.items():
        match = re.fullmatch(pattern.replace("N", "([1-9][0-9]{0,2})"), name)
        if match and (not net.numbers or int(match[1]) in net.numbers):
            return net, int(match[1]) if match.groups() else 0
    raise _unknown(name, NAMES)


def find(name: str) -> str:
    """The name of a network of NETS, however it is written: `ResNet-20` and `resnet20` are one. Raises RecipeError."""
    plain = name.lower().replace("_", "-")
    for each in (plain, plain.replace("-", "", 1)):
        try:
            find_net(each)
        except RecipeError:
            continue
        return each
    raise _unknown(name, NAMES)


def find_any(name: str) -> str:
    """The name of a network of NETS or, from `bases`, of `keras.applications`. Raises RecipeError."""
    for known in (find, bases.find):
        with contextlib.suppress(RecipeError):
            return known(name)
    raise _unknown(name, (*NAMES, *bases.BASES))


def _unknown(name: str, known: Sequence[str]) -> RecipeError:
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(NAMES)}; and `kerastk bases`."
    return RecipeError(f"no network is called {name!r}. {hint}")


def _lenet5(values: keras.KerasTensor, layers: Layers, number: int) -> keras.KerasTensor:
    """LeNet-5, in which each map of the second convolution sees all of the first."""
    # Its images have a border of two pixels.
    padding = "same" if values.shape[1] < 32 else "valid"
    values = layers.halved(layers.block(values, 6, 5, padding=padding))
    values = layers.halved(layers.block(values, 16, 5, padding="valid"))
    return layers.dense(layers.dense(layers.flat(values), 120), 84)


def _alexnet(values: keras.KerasTensor, layers: Layers, number: int) -> keras.KerasTensor:
    """AlexNet on one device, without local response normalisation."""
    values = layers.halved(layers.block(values, 96, 11, stride=4, padding="valid"), size=3)
    values = layers.halved(layers.block(values, 256, 5), size=3)
    values = layers.block(layers.block(layers.block(values, 384), 384), 256)
    values = layers.dropped(layers.flat(layers.halved(values, size=3)), 0.5)
    return layers.dense(layers.dropped(layers.dense(values, 4096), 0.5), 4096)


def _alexnet_small(values: keras.KerasTensor, layers: Layers, number: int) -> keras.KerasTensor:
    """AlexNet with a first convolution that keeps a small image's size, and narrower dense layers."""
    values = layers.halved(layers.block(values, 64, 5), size=3)
    values = layers.halved(layers.block(values, 192, 5), size=3)
    values = layers.block(layers.block(layers.block(values, 384), 256), 256)
    values = layers.dropped(layers.flat(layers.halved(values, size=3)), 0.5)
    return layers.dense(layers.dropped(layers.dense(values, 1024), 0.5), 1024)


def _allconv(values: keras.KerasTensor, layers: Layers, number: int) -> keras.KerasTensor:
    """All-CNN-C: nothing but convolutions; those with a step of two stand for pooling."""
    for filters in (96, 192):
        values = layers.block(layers.block(layers.dropped(values, 0.2 if filters == 96 else 0.5), filters), filters)
        values = layers.block(values, filters, stride=2)
    values = layers.block(layers.block(layers.dropped(values, 0.5), 192), 192, 1)
    return layers.averaged(values)


def _vgg_small(values: keras.KerasTensor, layers: Layers, number: int) -> keras.KerasTensor:
    """Three of VGG's stages, and one dense layer."""
    for filters in (64, 128, 256):
        values = layers.halved(layers.block(layers.block(values, filters), filters))
    return layers.dense(layers.dropped(layers.flat(values), 0.3), 512)


def _resnet(values: keras.KerasTensor, layers: Layers, depth: int) -> keras.KerasTensor:
    """A residual network of 6n + 2 layers; its shortcuts have no weights, but channels of zeros (option A)."""
    values = layers.block(values, 16)
    for filters in (16, 32, 64):
        for block in range((depth - 2) // 6):
            stride = 2 if block == 0 and filters > 16 else 1
            short = values
            values = layers.norm(layers.conv(layers.block(values, filters, stride=stride), filters))
            if stride == 2:
                short = keras.layers.AveragePooling2D(1, strides=2, name=layers.name("skip"))(short)
                missing = filters - short.shape[-1]
                short = ops.pad(short, [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)])
            values = layers.active(keras.layers.Add(name=layers.name("add"))([values, short]))
    return layers.averaged(values)


def _wide_resnet(depth: int) -> Callable[[keras.KerasTensor, Layers, int], keras.KerasTensor]:
    """A wide residual network of 6n + 4 layers, whose blocks begin with normalisation and activation."""

    def build(values: keras.KerasTensor, layers: Layers, width: int) -> keras.KerasTensor:
        values = layers.conv(values, 16, bias=False)
        for filters in (16 * width, 32 * width, 64 * width):
            for block in range((depth - 4) // 6):
                stride = 2 if block == 0 and filters > 16 * width else 1
                ready = layers.active(layers.norm(values))
                short = values
                if block == 0:
                    short = layers.conv(ready, filters, 1, stride=stride, bias=False)
                inner = layers.conv(ready, filters, stride=stride)
                inner = layers.conv(layers.active(layers.norm(inner)), filters, bias=False)
                values = keras.layers.Add(name=layers.name("add"))([inner, short])
        return layers.averaged(layers.active(layers.norm(values)))

    return build


def _fast(values: keras.KerasTensor, layers: Layers, width: int) -> keras.KerasTensor:
    """Airbench's network: a whitening of small patches, and three stages of two convolutions, the first one pooled."""
    patch = WHITENED * WHITENED * values.shape[-1]
    whitened = keras.layers.Conv2D(
        2 * patch, WHITENED, padding="valid", kernel_initializer=initializer("he"), name=f"{layers.prefix}whitening"
    )
    values = layers.active(whitened(values))
    for filters in (width, 4 * width, 4 * width):
        values = layers.active(layers.norm(layers.halved(layers.conv(values, filters))))
        values = layers.block(values, filters)
    largest = keras.layers.GlobalMaxPooling2D(name=layers.name("largest"))(values)
    # The paper has its logits a ninth as large; so the head is stable at greater rates, by the size of its inputs.
    return keras.layers.Rescaling(1 / 9, dtype="float32", name=layers.name("smaller"))(largest)


def whiten(model: keras.Model, images: np.ndarray) -> None:
    """Set the first convolution of each `fast` network in a model so that its answers to images are uncorrelated.

    `images` is (images, height, width, channels) uint8, some thousands of them. The filters are the principal axes of
    their 2 x 2 patches, each divided by its deviation, and the same with the other sign (Jordan 2024,
    arXiv:2404.00498); other networks are left as they are.
    """
    layers = [layer for layer in model.layers if layer.name.endswith("whitening")]
    if not layers:
        return
    scaled = images.astype(np.float32) / 127.5 - 1
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (WHITENED, WHITENED), axis=(1, 2))
    patches = windows[:, ::WHITENED, ::WHITENED].transpose(0, 1, 2, 4, 5, 3).reshape(-1, windows[0, 0, 0].size)
    values, axes = np.linalg.eigh(np.cov(patches, rowvar=False).reshape(patches.shape[1], -1))
    filters = (axes / np.sqrt(values + 5e-4)).T[::-1].reshape(-1, WHITENED, WHITENED, images.shape[-1])
    kernel = np.concatenate([filters, -filters]).transpose(1, 2, 3, 0)
    for layer in layers:
        layer.set_weights([kernel, np.zeros(kernel.shape[-1], np.float32)])


# By the name, in which N stands for a number.
NETS: dict[str, Net] = {
    "lenet5": Net(
        build=_lenet5, image_size=32, smallest=20, source="LeCun et al. 1998, Proc. IEEE 86(11)",
        style=Style(activation="tanh", normalisation="none", pooling="average", initialiser="glorot"),
    ),
    "alexnet": Net(
        build=_alexnet, image_size=227, smallest=67, source="Krizhevsky et al. 2012, NIPS 25",
        style=Style(normalisation="none", pooling="max"),
    ),
    "alexnet-small": Net(
        build=_alexnet_small, image_size=32, smallest=15, source="Krizhevsky et al. 2012, NIPS 25; for small images",
        style=Style(normalisation="none", pooling="max"),
    ),
    "allconv": Net(
        build=_allconv, image_size=32, smallest=8, source="Springenberg et al. 2014, arXiv:1412.6806 (All-CNN-C)",
        style=Style(normalisation="none"),
    ),
    "vgg-small": Net(
        build=_vgg_small, image_size=32, smallest=8,
        source="Simonyan and Zisserman 2014, arXiv:1409.1556; for small images",
        style=Style(pooling="max"),
    ),
    "resnetN": Net(
        build=_resnet, image_size=32, smallest=8, source="He et al. 2015, arXiv:1512.03385, section 4.2",
        style=Style(), numbers=(20, 32, 44, 56, 110),
    ),
    "wrn-16-N": Net(
        build=_wide_resnet(16), image_size=32, smallest=8,
        source="Zagoruyko and Komodakis 2016, arXiv:1605.07146", style=Style(),
    ),
    "wrn-28-N": Net(
        build=_wide_resnet(28), image_size=32, smallest=8,
        source="Zagoruyko and Komodakis 2016, arXiv:1605.07146", style=Style(),
    ),
    "fast-N": Net(
        build=_fast, image_size=32, smallest=9, source="Jordan 2024, arXiv:2404.00498 (airbench94 is fast-64)",
        style=Style(activation="gelu", pooling="max"),
    ),
}  # fmt: skip
# Names as they are told: those with few numbers one by one.
NAMES = tuple(
    each for name, net in NETS.items() for each in ([name.replace("N", str(n)) for n in net.numbers] or [name])
)
