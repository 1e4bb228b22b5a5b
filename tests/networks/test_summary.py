import json
import math

import keras
import numpy as np
import pytest
from keras import layers

from kerastk.networks.autoencoder import autoencoder
from kerastk.networks.bases import BASES
from kerastk.networks.calls import calls
from kerastk.networks.cuts import cut_for, named_stages, split_at
from kerastk.networks.receptive import PIXEL, fields
from kerastk.networks.summary import summary
from kerastk.networks.tagger import Characters, tagger

# Parameters with a head for ImageNet's 1,000 classes as Keras's documentation has them; multiply-adds of the papers (in
# brackets where that is not the network's own): ResNet arXiv:1512.03385, Inception-ResNet v2 (arXiv:1904.04971),
# MobileNet arXiv:1704.04861, MobileNetV2 arXiv:1801.04381, EfficientNet arXiv:1905.11946, NASNet arXiv:1707.07012,
# ConvNeXt arXiv:2201.03545, DenseNet (arXiv:1904.04971), Inception v3 (arXiv:1905.11946).
PUBLISHED = {
    "resnet50": (25_636_712, 3.8e9), "inception_v3": (23_851_784, 5.7e9), "inception_resnet_v2": (55_873_736, 13e9),
    "mobilenet": (4_253_864, 569e6), "mobilenet_v2": (3_538_984, 300e6), "densenet121": (8_062_504, 2.8e9),
    "nasnet_mobile": (5_326_716, 564e6), "efficientnet_b0": (5_330_571, 0.39e9), "convnext_tiny": (28_589_128, 4.5e9),
}  # fmt: skip
# Araujo et al. 2019, Distill, table 1, all of it that is among the bases; AlexNet and VGG stand below, and Inception v2
# (699) Keras does not have. Their ResNet halves its maps at the end of a stage and Keras's in the first 1 x 1 kernel of
# the next; both see 483 pixels, while one that does so in the first 3 x 3 kernel ("v1.5") sees 427.
SEEN = {"resnet50": 483, "resnet50_v2": 483, "inception_v3": 1311, "inception_resnet_v2": 3039, "mobilenet": 315}


@pytest.fixture(scope="module")
def shown(graph):
    """base -> the summary of its classifier of 3 classes at its own size."""
    return lambda base: summary(graph(base, BASES[base].image_size))


def rows(model):
    return {row.name: row for row in summary(model).rows}


@pytest.mark.parametrize("base", PUBLISHED)
def test_parameters_and_work_of_the_bases_are_the_published_ones(base, graph, shown):
    found, (parameters, macs) = shown(base), PUBLISHED[base]
    features = graph(base, BASES[base].image_size).get_layer("head").kernel.shape[0]
    assert found.parameters == graph(base, BASES[base].image_size).count_params()
    assert found.parameters + (1000 - 3) * (features + 1) == parameters
    assert found.macs == pytest.approx(macs, rel=0.02)
    assert not found.at_least
    assert found.per == "image"


@pytest.mark.parametrize("base", SEEN)
def test_receptive_fields_of_the_bases_are_the_published_ones(base, shown):
    assert shown(base).receptive_field == (SEEN[base], SEEN[base])
    assert shown(base).stride == (32, 32)


def test_vgg16_with_its_dense_layers():
    with keras.StatelessScope(initialize_variables=False):
        found = summary(keras.applications.VGG16(weights=None))
    assert found.parameters == 138_357_544
    assert found.bytes == 4 * 138_357_544
    # arXiv:1409.1556 has no figure; 15.5e9 in many surveys, 15.3e9 of them convolutions.
    assert found.macs == 15_470_264_320
    assert found.flops == 2 * found.macs
    seen = {row.name: row.receptive_field for row in found.rows}
    assert (seen["block5_conv3"], seen["block5_pool"]) == ((196, 196), (212, 212))
    assert (seen["flatten"], seen["fc1"], seen["predictions"]) == (None, None, None)


def test_alexnet_sees_195_pixels():
    photo = values = keras.Input((227, 227, 3))
    for filters, size, stride, pooled in (
        (96, 11, 4, 1),
        (256, 5, 1, 1),
        (384, 3, 1, 0),
        (384, 3, 1, 0),
        (256, 3, 1, 1),
    ):
        values = layers.Conv2D(filters, size, strides=stride, padding="valid" if stride > 1 else "same")(values)
        values = layers.MaxPooling2D(3, strides=2)(values) if pooled else values
    assert summary(keras.Model(photo, values)).receptive_field == (195, 195)


def _one_more(values, generator):
    """One more random layer, or two of them side by side."""
    size, stride, dilation = (int(generator.integers(1, most)) for most in (6, 4, 3))
    padding = str(generator.choice(["same", "valid"]))
    kind = generator.integers(11)
    if kind in (0, 1):
        dilated = {"strides": stride} if kind else {"dilation_rate": dilation}
        return layers.Conv2D(2, (size, 3), padding=padding, **dilated)(values)
    if kind == 2:
        return layers.DepthwiseConv2D(size, strides=stride, padding=padding)(values)
    if kind == 3:
        return layers.SeparableConv2D(2, size, strides=stride, padding=padding)(values)
    if kind in (4, 5):
        pooling = layers.MaxPooling2D if kind == 4 else layers.AveragePooling2D
        return pooling(max(size, 2), strides=stride, padding=padding)(values)
    if kind == 6:
        return layers.ZeroPadding2D(((1, 0), (2, 1)))(values)
    if kind == 7:
        return layers.UpSampling2D(2, interpolation=str(generator.choice(["nearest", "bilinear"])))(values)
    if kind == 8:
        return layers.Conv2DTranspose(2, size, strides=2, padding=padding)(values)
    if kind == 9:
        return keras.ops.depth_to_space(layers.Conv2D(8, 3, padding=padding)(values), 2)
    low = layers.Conv2D(2, 5, padding="same", dilation_rate=2)(values)
    return layers.Concatenate()([layers.Conv2D(2, 1)(values), layers.Cropping2D(((1, 1), (0, 2)))(
        layers.ZeroPadding2D(((2, 0), (1, 1)))(low))])  # fmt: skip


def _random(seed):
    """A network of a few random layers, all kernels of ones, so that nothing that is seen cancels out."""
    generator = np.random.default_rng(seed)
    image = values = keras.Input((96, 89, 1))
    while 16 < min(values.shape[1:3]) < 150 and len(keras.Model(image, values).operations) < 7:
        values = _one_more(values, generator)
    model = keras.Model(image, values)
    for weight in model.weights:
        weight.assign(np.full(weight.shape, float(len(weight.shape) > 1)))
    return model


@pytest.mark.parametrize("seed", range(30))
def test_windows_are_those_of_the_pixels_that_move_an_output(seed):
    model = _random(seed)
    found = calls(model)
    (height, width), shape = fields(found)[found[-1].outputs[0]], model.output.shape
    for number, axis in enumerate((height, width)):
        length = model.input.shape[1 + number]
        # An image for each line of pixels, all else 0.
        lines = np.eye(length, dtype="float32")
        images = lines[:, :, None, None] if number == 0 else lines[:, None, :, None]
        images = np.broadcast_to(images, (length, *model.input.shape[1:]))
        # (places, lines); whatever the place on the other axis.
        moved = np.asarray(model(images)).sum(axis=(2 - number, 3)).T != 0
        windows = [axis.at(place) for place in range(shape[1 + number])]
        # Near the border what is seen ends with the image, or in padding further up; a window is of anywhere.
        inner = [place for place, window in enumerate(windows)
                 if window is not None and window[0] >= length // 5 and window[1] < length - length // 5]  # fmt: skip
        for place in inner:
            pixels = np.flatnonzero(moved[place])
            assert (pixels[0], pixels[-1]) == windows[place], (number, place)
        if len(inner) >= len(axis.windows):
            assert axis.size == max(np.ptp(np.flatnonzero(moved[place])) + 1 for place in inner)


def test_most_random_networks_have_places_to_compare():
    # Else the test above would compare nothing.
    compared = 0
    for seed in range(30):
        found = calls(_random(seed))
        height, _ = fields(found)[found[-1].outputs[0]]
        compared += any(first >= 19 and last < 77 for first, last in filter(None, map(height.at, range(96))))
    assert compared > 25


def test_gates_and_statistics_count_as_seeing_nothing():
    photo = keras.Input((32, 32, 8))
    maps = layers.Conv2D(8, 3, padding="same", name="maps")(photo)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(maps)
    gate = layers.Reshape((1, 1, 8), name="reshaped")(layers.Dense(8, activation="sigmoid", name="gate")(pooled))
    gated = layers.GroupNormalization(4, name="normal")(layers.Multiply(name="gated")([maps, gate]))
    found = rows(keras.Model(photo, layers.Conv2D(8, 3, name="end")(gated)))
    assert [found[name].receptive_field for name in ("pooled", "gate", "reshaped")] == [None] * 3
    assert [found[name].receptive_field for name in ("maps", "gated", "normal")] == [(3, 3)] * 3
    assert found["end"].receptive_field == (5, 5)
    # The gate's work counts all the same.
    assert found["gate"].macs == 64


def test_height_and_width_go_by_themselves_and_branches_are_joined():
    photo = keras.Input((32, 32, 4))
    flat = layers.Conv2D(4, (1, 7), padding="same", name="flat")(photo)
    tall = layers.Conv2D(4, (5, 3), padding="same", name="tall")(photo)
    found = rows(keras.Model(photo, layers.Add(name="both")([flat, tall])))
    assert found["flat"].receptive_field == (1, 7)
    assert found["both"].receptive_field == (5, 7)


def test_branches_that_look_beside_each_other_see_both():
    photo = keras.Input((32, 32, 4))
    left = layers.Cropping2D(((0, 4), (0, 4)))(photo)
    right = layers.Cropping2D(((4, 0), (4, 0)))(photo)
    assert rows(keras.Model(photo, layers.Add(name="both")([left, right])))["both"].receptive_field == (5, 5)


@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_padding_same_by_a_stride_stands_where_keras_puts_it(size):
    # The first place sees more or less of the padding in front, by what is left over of the length.
    photo = keras.Input((size, size, 1))
    layer = layers.Conv2D(1, 5, strides=3, padding="same", kernel_initializer="ones")
    model = keras.Model(photo, layer(photo))
    lines = np.eye(size, dtype="float32")[:, :, None, None] * np.ones((1, 1, size, 1), "float32")
    first = np.flatnonzero(np.asarray(model(lines))[:, 0, 0, 0])
    found = calls(model)
    window = fields(found)[found[-1].outputs[0]][0].at(0)
    assert max(window[0], 0) == first[0]
    assert window[1] == first[-1]
    assert PIXEL.at(3) == (3, 3)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3),
        layers.Conv2D(4, (3, 2), strides=2),
        layers.Conv2D(6, 3, dilation_rate=2, groups=2),
        layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2),
        layers.Conv2DTranspose(3, (3, 2), strides=2),
        layers.Dense(7),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_work_is_the_number_of_products_that_are_summed(layer):
    photo = keras.Input((9, 7, 4))
    model = keras.Model(photo, layer(photo))
    for weight in model.weights:
        weight.assign(np.full(weight.shape, float(len(weight.shape) > 1)))
    # Each output is a sum of products of ones, and without padding it is how many they are.
    assert summary(model).macs == float(np.asarray(model(np.ones((1, 9, 7, 4), "float32"))).sum())
    assert summary(model).parameters == model.count_params()


def test_what_falls_on_padding_counts_too():
    photo = keras.Input((9, 7, 4))
    same = layers.Conv2D(5, 3, strides=2, padding="same", name="same")(photo)
    apart = layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2, name="apart")(photo)
    larger = layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="larger")(photo)
    found = rows(keras.Model(photo, [same, apart, larger]))
    assert found["same"].macs == 5 * 4 * 9 * 4 * 5
    assert found["apart"].macs == 9 * 7 * (9 * 4 * 2 + 8 * 6)
    assert found["larger"].macs == 9 * 7 * 9 * 4 * 3


def test_recurrent_layers_are_counted_for_each_step():
    words = keras.Input((7, 3))
    both = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both")(words)
    found = summary(keras.Model(words, layers.GRU(2, name="last")(both)))
    macs = {row.name: row.macs for row in found.rows}
    assert macs == {"both": 2 * 7 * 4 * (3 * 5 + 5 * 5), "last": 7 * 3 * (10 * 2 + 2 * 2)}
    assert {row.receptive_field for row in found.rows} == {None}
    assert found.receptive_field is None
    assert found.per == "row"


@pytest.mark.parametrize(("network", "spelled"), [("cnn", 3 * 6 * 4), ("lstm", 2 * 4 * (6 * 4 + 4 * 4))])
def test_a_tagger_is_counted_for_a_word_of_one_character(network, spelled):
    characters = Characters(network=network, count=20, size=6, values=4, widths=(3,) if network == "cnn" else ())
    model = tagger(
        words=50, tags=5, word_size=10, vectors=None, train_vectors=True, characters=characters, casings=3,
        casing_size=2, cell="lstm", layers=1, width=8, dropout=0.1, output="crf", legal=None,
    )  # fmt: skip
    found = summary(model)
    size = 10 + (4 if network == "cnn" else 8) + 2
    assert found.macs == spelled + 2 * 4 * (size * 8 + 8 * 8) + 16 * 5 + 2 * 25
    assert found.per == "step"
    assert not found.at_least
    assert found.parameters == model.count_params()


@pytest.mark.parametrize("upsample", ["transpose", "subpixel", "resize"])
def test_an_autoencoder_sees_all_behind_its_code(upsample):
    model = autoencoder((28, 28, 1), kind="conv", widths=(8, 16), latent=4, activation="relu", upsample=upsample)
    found = summary(model)
    assert not found.at_least
    assert found.receptive_field == (19, 19)
    names = [row.name for row in found.rows]
    assert {row.receptive_field for row in found.rows[names.index("flat") :]} == {None}
    assert None not in {row.receptive_field for row in found.rows[: names.index("flat")]}


def test_a_kind_that_is_not_known_counts_its_parameters_and_says_at_least():
    words = keras.Input((6, 8))
    values = layers.Dense(8, name="dense")(words)
    attended = layers.MultiHeadAttention(2, 4, name="attention")(values, values)
    model = keras.Model(words, attended)
    found = summary(model)
    assert found.at_least
    assert found.macs == 6 * 8 * 8
    assert found.rows[-1].macs is None
    assert found.parameters == model.count_params()
    (stage,) = found.by_stage({"all": [operation.name for operation in model.operations]})
    assert (stage.at_least, stage.macs) == (True, 6 * 8 * 8)


def test_what_is_behind_a_kind_that_is_not_known_is_not_known():
    photo = keras.Input((16, 16, 4))
    turned = keras.ops.flip(layers.Conv2D(4, 3, name="maps")(photo), axis=1)
    found = rows(keras.Model(photo, layers.Conv2D(4, 3, name="end")(turned)))
    assert found["maps"].receptive_field == (3, 3)
    assert found["end"].receptive_field is None
    assert found["end"].macs == 12 * 12 * 9 * 16


def test_maps_of_free_size_have_no_number_but_see_as_much():
    photo = keras.Input((None, None, 3))
    found = summary(keras.Model(photo, layers.Conv2D(4, 3, padding="same")(layers.Conv2D(4, 3, strides=2)(photo))))
    assert found.at_least
    assert found.per == "image"
    assert found.receptive_field == (7, 7)


def test_a_layer_in_two_places_works_twice_and_has_its_parameters_once():
    left, right = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(3, name="shared")
    model = keras.Model([left, right], layers.Subtract()([shared(left), shared(right)]))
    found = summary(model)
    assert found.parameters == model.count_params() == 15
    assert found.macs == 2 * 12
    assert [row.parameters for row in found.rows if row.name == "shared"] == [15, 0]


def test_nested_models_are_opened(shown):
    inner = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3, name="conv"), layers.ReLU()], name="inner")
    photo = keras.Input((16, 16, 3))
    stem = layers.Conv2D(3, 3, padding="same", name="conv")(photo)
    found = rows(keras.Model(photo, layers.MaxPooling2D(2, name="pool")(inner(stem))))
    assert found["conv"].receptive_field == (3, 3)
    assert found["inner/conv"].receptive_field == (5, 5)
    assert found["inner/conv"].macs == 14 * 14 * 9 * 12
    assert found["pool"].receptive_field == (6, 6)
    assert "convnext_tiny_stem/convnext_tiny_stem_conv" in {row.name for row in shown("convnext_tiny").rows}


def test_a_part_of_a_model_can_be_told_too(graph):
    model = graph("mobilenet_v2_0.35", 96)
    parts = [summary(part) for part in split_at(model, cut_for(model, 2))]
    assert sum(part.macs for part in parts) == summary(model).macs
    assert sum(part.parameters for part in parts) == model.count_params()


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "convnext_tiny", "efficientnet_b0"])
def test_stages_come_to_all_of_it(base, graph, shown):
    model = graph(base, BASES[base].image_size)
    found = shown(base)
    stages = found.by_stage(named_stages(model))
    assert [stage.name for stage in stages][-2:] == [f"stage_{len(stages) - 1}", "head"]
    for name in ("trained", "untrained", "macs"):
        assert sum(getattr(stage, name) for stage in stages) == getattr(found, name)
    assert stages[-2].receptive_field == found.receptive_field
    assert (stages[-1].shape, stages[-1].receptive_field) == ((3,), None)
    sees = [stage.receptive_field for stage in stages[:-1]]
    assert sees == sorted(sees)


def test_frozen_parameters_are_not_trained():
    photo = keras.Input((8, 8, 3))
    maps = layers.BatchNormalization(name="normal")(layers.Conv2D(4, 3, name="conv")(photo))
    model = keras.Model(photo, maps)
    model.get_layer("conv").trainable = False
    found = rows(model)
    assert (found["conv"].trained, found["conv"].untrained) == (0, 112)
    assert (found["normal"].trained, found["normal"].untrained) == (8, 8)


def test_all_of_it_is_json(shown):
    found = shown("mobilenet")
    read = json.loads(json.dumps(found.as_json()))
    assert read["receptive_field"] == [315, 315]
    assert read["flops"] == 2 * read["macs"] == 2 * sum(row["macs"] for row in read["rows"])
    assert read["inputs"] == {"photo": [224, 224, 3]}
    assert math.prod(read["rows"][-1]["shape"]) == 3


def test_what_is_no_graph_is_refused():
    class Own(keras.Model):
        def call(self, values):
            return values

    with pytest.raises(ValueError, match="no functional model"):
        summary(Own())


def test_kernels_as_large_as_no_network_has_are_given_up():
    # A model's file may be anybody's.
    photo = keras.Input((8, 8, 1))
    huge = layers.MaxPooling2D(10**8, strides=1, padding="same")(photo)
    assert summary(keras.Model(photo, huge)).receptive_field is None
