import math
from itertools import pairwise

import keras
import numpy as np
import pytest

from kerastk.errors import RecipeError
from kerastk.networks.bases import BASES
from kerastk.networks.cuts import blocks, cache_cut, cut_for, cuts, features, split_at, stages, work

# Stages below the features, the last one included.
STAGES = {
    "VGG": 5, "ResNet": 5, "ResNetV2": 5, "InceptionV3": 5, "InceptionResNetV2": 5, "Xception": 5, "MobileNet": 5,
    "MobileNetV2": 5, "MobileNetV3": 5, "DenseNet": 5, "NASNet": 2, "EfficientNet": 5, "EfficientNetV2": 5,
    "ConvNeXt": 4, "mini": 4,
}  # fmt: skip


def _learning(layers):
    return [each for each in layers if each.weights and not isinstance(each, keras.layers.Normalization)]


@pytest.mark.parametrize("base", ["vgg16", "mobilenet_v2_0.35", "mobilenet_v3_small_0.75", "efficientnet_b0"])
def test_every_cut_cuts(base, small, photos):
    model = small(base)
    images = photos(2, BASES[base].smallest)
    whole = np.asarray(model(images))
    found = cuts(model, features(model))

    assert len(found) > 15
    assert len({each.layer for each in found}) == len(found)
    # Each cut in turn: what one part leaves the next must be all that it needs.
    for before, after in zip([None, *found], [*found, None], strict=True):
        start = model.input if before is None else before.tensor
        end = model.output if after is None else after.tensor
        images = keras.Model(start, end)(images)
    np.testing.assert_allclose(np.asarray(images), whole, atol=1e-6)


def test_the_stages_in_turn_are_the_whole(member, small, photos):
    model = small(member)
    images = photos(2, BASES[member].smallest)
    whole = np.asarray(model(images))
    ends = [model.input, *(cut.tensor for cut in stages(model)), model.output]
    parts = [keras.Model(start, end) for start, end in pairwise(ends)]

    for part in parts:
        images = part(images)
    np.testing.assert_allclose(np.asarray(images), whole, atol=1e-5)
    assert len({id(each) for part in parts for each in part.weights}) == len(model.weights)


def test_prefix_and_tail_share_the_models_layers(small, photos):
    model = small("mobilenet_v2_0.35")
    images = photos(2, 32)
    prefix, tail = split_at(model, cut_for(model, 2))

    np.testing.assert_allclose(np.asarray(tail(prefix(images))), np.asarray(model(images)), atol=1e-6)
    assert {id(each) for each in prefix.weights}.isdisjoint(id(each) for each in tail.weights)
    assert {id(each) for each in (*prefix.weights, *tail.weights)} == {id(each) for each in model.weights}


def test_stages_are_the_same_at_every_size(member, graph):
    models = [graph(member, BASES[member].image_size), graph(member, 96)]
    found = [stages(model) for model in models]

    assert [len(ends) + 1 for ends in found] == [STAGES[BASES[member].family]] * 2
    # As many weights below each.
    below = [
        [len(keras.Model(model.input, cut.tensor).weights) for cut in ends]
        for model, ends in zip(models, found, strict=True)
    ]
    assert below[0] == below[1]
    for own, less in zip(*found, strict=True):
        # Unpadded convolutions take off more of a small map than of a large one.
        ratio = BASES[member].image_size / own.tensor.shape[1]
        assert 96 / less.tensor.shape[1] == pytest.approx(ratio, rel=0.4, abs=0.5)


def test_every_stage_has_something_to_train(member, graph):
    model = graph(member, BASES[member].image_size)
    ends = [model.input, *(cut.tensor for cut in stages(model)), features(model)]
    parts = [keras.Model(start, end) for start, end in pairwise(ends)]

    assert all(_learning(part.layers) for part in parts)
    assert sum(len(_learning(part.layers)) for part in parts) == len(_learning(model.layers)) - 1  # the head


def test_stages_end_where_the_resolution_drops(graph):
    found = stages(graph("resnet50", 224))
    assert [(cut.layer, cut.tensor.shape[1]) for cut in found[1:]] == [
        ("conv2_block3_out", 56),
        ("conv3_block4_out", 28),
        ("conv4_block6_out", 14),
    ]
    assert [cut.layer for cut in stages(graph("vgg16", 224))] == [
        "block1_conv2",
        "block2_conv2",
        "block3_conv3",
        "block4_conv3",
    ]


def test_nasnet_has_no_cut_between_its_stem_and_its_end(graph):
    model = graph("nasnet_mobile", 224)
    assert [cut.layer for cut in stages(model)] == ["stem_bn1"]
    maps = [cut for cut in cuts(model, features(model)) if len(cut.tensor.shape) == 4]
    after = maps[[cut.layer for cut in maps].index("stem_bn1") + 1 :]
    assert {cut.tensor.shape[1] for cut in after} == {7}

    with pytest.raises(RecipeError, match=r"unfreeze 3: the base has no so many stages; it has 2\."):
        cut_for(model, 3)


def test_unfreeze_counts_stages_from_the_top(graph):
    model = graph("mobilenet_v2_0.35", 96)
    ends = stages(model)

    assert cut_for(model, 1) is ends[-1].tensor
    assert cut_for(model, 2) is ends[-2].tensor
    assert cut_for(model, len(ends)) is ends[0].tensor
    assert cut_for(model, len(ends) + 1) is None
    with pytest.raises(RecipeError, match=r"unfreeze 6: the base has no so many stages; it has 5\."):
        cut_for(model, len(ends) + 2)


def test_head_and_all(graph):
    model = graph("mobilenet_v2_0.35", 96)
    assert cut_for(model, "head") is features(model)
    assert tuple(features(model).shape) == (None, 1280)
    assert cut_for(model, "all") is None


def test_a_network_without_stages_says_so():
    photo = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, padding="same")(photo))
    head = keras.layers.Dense(2)(keras.layers.Dropout(0.1, name="head_dropout")(pooled))
    model = keras.Model(photo, head)

    assert stages(model) == []
    assert cut_for(model, 1) is None
    with pytest.raises(RecipeError, match="it cannot be cut into stages"):
        cut_for(model, 2)


def test_no_cut_lies_inside_a_branch():
    start = keras.Input((8,), name="start")
    first = keras.layers.Dense(4, name="first")(start)
    left = keras.layers.Dense(4, name="left")(first)
    right = keras.layers.Dense(4, name="right")(first)
    right = keras.layers.Dense(4, name="right_again")(right)
    joined = keras.layers.Add(name="joined")([left, right])
    skipped = keras.layers.Dense(4, name="skipped")(joined)
    again = keras.layers.Add(name="again")([joined, skipped])
    end = keras.layers.Dense(2, name="end")(again)

    assert [cut.layer for cut in cuts(keras.Model(start, end), end)] == ["first", "joined", "again", "end"]


def _values(tensor):
    """Numbers that a photo has there."""
    return math.prod(tensor.shape[1:])


@pytest.mark.parametrize("base", ["mobilenet_v2", "mobilenet_v2_0.35", "efficientnet_b0"])
def test_inverted_bottlenecks_are_cached_where_they_are_narrow(base, graph):
    model = graph(base, 224)
    for unfreeze in (1, 2, 3):
        cut = cut_for(model, unfreeze)
        kept = cache_cut(model, cut)
        # The narrow input of the block in which the stage ends: the end of the residual block before it.
        assert kept.merges
        assert _values(kept.tensor) <= _values(cut) / 2
        # What lies between them is computed again each epoch; it is little beside what is trained.
        whole, frozen = work(model, features(model)), work(model, cut)
        again = frozen - work(model, kept.tensor)
        assert 0 < again <= 0.05 * 3 * (whole - frozen)
        # From what is kept the rest can be computed.
        assert len(keras.Model(kept.tensor, model.output).weights) < len(model.weights)


@pytest.mark.parametrize("base", ["resnet50", "vgg16", "convnext_tiny"])
def test_other_networks_are_cached_at_the_end_of_the_stage_itself(base, graph):
    model = graph(base, 224)
    for unfreeze in (1, 2, 3):
        cut = cut_for(model, unfreeze)
        assert cache_cut(model, cut).tensor is cut


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "resnet50", "vgg16"])
def test_a_head_alone_is_cached_at_the_features(base, graph):
    model = graph(base, 224)
    assert cache_cut(model, cut_for(model, "head")).tensor is features(model)


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "mobilenet_0.25", "mobilenet_v3_small_0.75"])
def test_what_is_cached_and_what_lies_between_it_and_the_cut_are_the_frozen_part(base, graph):
    model = graph(base, 224)
    for unfreeze in range(1, len(stages(model)) + 1):
        cut = cut_for(model, unfreeze)
        kept = cache_cut(model, cut)
        assert _values(kept.tensor) < _values(cut)
        below = _with_weights(keras.Model(model.input, kept.tensor))
        between = _with_weights(keras.Model(kept.tensor, cut))
        assert below.isdisjoint(between)
        assert below | between == _with_weights(keras.Model(model.input, cut))


def _with_weights(model):
    return {each.name for each in model.layers if each.weights}


def test_work_counts_the_multiplications_of_convolutions_and_dense_layers():
    photo = keras.Input((9, 9, 3))
    wide = keras.layers.Conv2D(5, 3, strides=2, name="wide")(photo)  # 4 x 4 places of 3 x 3 x 3 x 5
    deep = keras.layers.DepthwiseConv2D(2, name="deep")(keras.layers.ReLU()(wide))  # 3 x 3 places of 2 x 2 x 5
    flat = keras.layers.Flatten()(keras.layers.BatchNormalization()(deep))
    end = keras.layers.Dense(7, name="end")(flat)
    model = keras.Model(photo, end)

    assert work(model, wide) == 16 * 135
    assert work(model, deep) == work(model, flat) == 16 * 135 + 9 * 20
    assert work(model, end) == 16 * 135 + 9 * 20 + 45 * 7


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "resnet50", "convnext_tiny"])
def test_work_grows_from_cut_to_cut_up_to_the_whole(base, graph):
    model = graph(base, 224)
    done = [work(model, cut.tensor) for cut in cuts(model, features(model))]
    assert done == sorted(done)
    assert done[-1] == work(model, features(model))
    by_stage = [work(model, cut.tensor) for cut in stages(model)]
    assert all(below < above for below, above in pairwise([0, *by_stage, done[-1]]))


def test_the_work_of_resnet50_is_that_of_its_paper(graph):
    # arXiv:1512.03385, table 1: 3.8e9 for 224 pixels.
    model = graph("resnet50", 224)
    assert work(model, features(model)) == pytest.approx(3.8e9, rel=0.03)


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "resnet50", "convnext_tiny", "densenet121", "vgg16"])
def test_every_layer_with_weights_stands_in_one_block_and_the_head_comes_first(base, graph):
    model = graph(base, 224)
    found = blocks(model)

    assert found[0] == {"head"}
    names = [name for block in found for name in block]
    assert len(names) == len(set(names))
    assert _with_weights(model) <= set(names)
    # From the top down: no layer of a block comes before one of the block below it.
    first = {each.name: place for place, each in enumerate(model.layers)}
    with_weights = [[first[name] for name in block if model.get_layer(name).weights] for block in _layered(model)]
    for above, below in pairwise(places for places in with_weights if places):
        assert min(above) > max(below)


def _layered(model):
    """The blocks, without what is no layer of the model's own (an operation)."""
    own = {each.name for each in model.layers}
    return [block & own for block in blocks(model)]


@pytest.mark.parametrize("base", ["mobilenet_v2_0.35", "resnet50", "inception_v3"])
def test_every_block_has_something_to_train(base, graph):
    # A block's learning rate is a share of that of the block above; one without weights takes a share for nothing.
    model = graph(base, BASES[base].image_size)
    empty = [sorted(block) for block in blocks(model) if not block & _with_weights(model)]
    assert empty == []


def test_resnet50_has_a_block_for_each_residual_block_and_its_stem(graph):
    model = graph("resnet50", 224)
    head, *found, stem = _layered(model)
    assert head == {"head"}
    assert len(found) == 3 + 4 + 6 + 3
    assert {"conv1_conv", "conv1_bn"} <= stem
    for block in found:
        # All of a residual block's own convolutions: conv4_block2_1_conv, ..._2_conv, ..._3_conv.
        convolutions = {name for name in block if name.endswith("_conv")}
        assert len({name.rsplit("_", 2)[0] for name in convolutions}) == 1
        assert {name.rsplit("_", 2)[1] for name in convolutions} >= {"1", "2", "3"}
