import keras
import numpy as np
import pytest

from kerastk.networks.classifier import classifier, features_model
from kerastk.networks.cuts import cut_for, split_at
from kerastk.networks.folding import folded

PHOTOS = np.random.default_rng(7).integers(0, 256, (4, 64, 64, 3), "uint8")
# With batch normalisation behind every convolution, and in front of some.
BASES = ["mobilenet_v2_0.35", "resnet50_v2", "efficientnet_b0", "mobilenet_v3_small"]
SLOW = ("resnet50_v2", "efficientnet_b0")


def normalisations(network):
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize(
    "base", [pytest.param(each, marks=pytest.mark.slow) if each in SLOW else each for each in BASES]
)
def test_a_folded_network_is_the_same_function(base):
    keras.utils.set_random_seed(3)
    network = features_model(classifier(base, classes=3, image_size=64, dropout=0.5, weights=None))
    for layer in normalisations(network):
        shape = layer.gamma.shape if layer.scale else layer.moving_mean.shape
        random = np.random.default_rng(len(layer.name))
        layer.set_weights([random.uniform(0.5, 1.5, shape) for _ in layer.weights])
    before = [np.array(weight) for weight in network.weights]
    expected = network.predict_on_batch(PHOTOS)
    found = folded(network).predict_on_batch(PHOTOS)

    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    # The network itself is as it was.
    assert all(np.array_equal(old, new) for old, new in zip(before, network.weights, strict=True))


def test_behind_a_convolution_no_normalisation_is_left():
    network = features_model(classifier("mobilenet_v2_0.35", classes=3, image_size=64, dropout=0.0, weights=None))
    assert len(normalisations(network)) == 52
    assert not normalisations(folded(network))


def test_a_convolution_whose_output_is_used_twice_keeps_its_normalisation():
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="shared")(inputs)
    both = keras.layers.Add()([maps, keras.layers.BatchNormalization()(maps)])
    network = keras.Model(inputs, both)
    network.layers[2].set_weights([np.full(4, value) for value in (2.0, 1.0, 0.5, 4.0)])
    photos = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    assert len(normalisations(folded(network))) == 1
    np.testing.assert_allclose(folded(network)(photos), network(photos), atol=1e-6)


def test_what_is_asked_for_in_front_of_its_normalisation_is_given_so():
    model = classifier("mobilenet_v2_0.35", classes=3, image_size=64, dropout=0.0, weights=None)
    network = keras.Model(model.input, [model.get_layer("Conv1").output, model.get_layer("head_dropout").input])
    found, expected = folded(network).predict_on_batch(PHOTOS), network.predict_on_batch(PHOTOS)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


def test_what_else_was_built_on_the_layers_does_not_matter():
    model = classifier("mobilenet_v2_0.35", classes=3, image_size=64, dropout=0.0, weights=None)
    split_at(model, cut_for(model, 1))
    assert not normalisations(folded(features_model(model)))


def test_several_outputs_stay_several_outputs():
    model = classifier("mobilenet_v2_0.35", classes=3, image_size=64, dropout=0.0, weights=None)
    network = keras.Model(model.input, [model.get_layer("block_12_add").output, model.get_layer("head_dropout").input])
    found, expected = folded(network).predict_on_batch(PHOTOS), network.predict_on_batch(PHOTOS)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
