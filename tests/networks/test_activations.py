import math

import keras
import numpy as np
import pytest

from kerastk.errors import RecipeError
from kerastk.networks import saved
from kerastk.networks.activations import ACTIVATIONS, NAMES, activation, dense
from kerastk.networks.initializers import INITIALIZERS

BY_HAND = {
    "relu": lambda x: max(x, 0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}
POINTS = [-30.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0, 30.0]


def test_the_table_holds_those_of_the_formulas():
    assert ACTIVATIONS.keys() == BY_HAND.keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name):
    found = np.array(activation(name)(np.array(POINTS, np.float32)))
    np.testing.assert_allclose(found, [BY_HAND[name](point) for point in POINTS], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_dense_layer_ends_in_its_activation(name):
    layer = dense(3, name)
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = np.array(layer(values))
    linear = values @ np.array(layer.kernel) + np.array(layer.bias)
    np.testing.assert_allclose(found, np.vectorize(BY_HAND[name], otypes=[float])(linear), rtol=1e-5, atol=1e-6)


def test_a_dense_layer_with_maxout_is_the_larger_of_two_lines():
    layer = dense(3, "maxout", start="glorot")
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = np.array(layer(values))
    linear = (values @ np.array(layer.kernel) + np.array(layer.bias)).reshape(5, 3, 2)
    np.testing.assert_allclose(found, linear.max(axis=-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [activation, lambda name: dense(3, name)], ids=["activation", "dense"])
def test_another_name_is_refused(make):
    with pytest.raises(RecipeError, match=r"^activation must be one of relu, .*, maxout; got 'rleu'\.$"):
        make("rleu")


def test_maxout_alone_is_refused_with_what_makes_it():
    with pytest.raises(RecipeError, match=r"take dense\(units, name\)"):
        activation("maxout")
    with pytest.raises(RecipeError, match="initialiser must be one of he, glorot, normal, uniform; got 'hee'"):
        dense(3, "relu", start="hee")


def test_a_network_of_all_of_them_is_opened_as_what_others_may_have_sent(tmp_path):
    photo = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(photo)
    for name in ACTIVATIONS:
        x = activation(name)(x)
    for name in NAMES:
        for start in INITIALIZERS:
            x = dense(4, name, start=start)(x)
    model = keras.Model(photo, keras.layers.GlobalAveragePooling2D()(x))
    model.save(tmp_path / "model.keras")
    photos = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    assert np.array_equal(saved.load(tmp_path / "model.keras")(photos), model(photos))
