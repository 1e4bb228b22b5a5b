"""`kerastk.evaluation.explain` on the networks that it explains; it shares their fixtures."""

import keras
import numpy as np
import pytest

from kerastk.evaluation.explain import explainable, heat_maps
from kerastk.networks.bases import BASES
from kerastk.networks.classifier import classifier, features_model


def test_every_base_can_be_explained(member, graph):
    model = graph(member, BASES[member].image_size)
    assert explainable(model)
    assert not explainable(features_model(model))


# With a LayerNormalization before the head, and without.
@pytest.mark.parametrize(
    "base", [pytest.param("convnext_tiny", marks=pytest.mark.slow), "mobilenet_0.25", "efficientnet_b0"]
)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the gradients are taken by TensorFlow")
def test_the_maps_are_those_of_grad_cam_by_gradients(base, small, photos):
    import tensorflow as tf

    model = small(base)
    if base == "convnext_tiny":
        # A new one scales by 1, which would hide a mistake.
        norm = model.get_layer("head_dropout").input._keras_history.operation
        norm.gamma.assign(np.random.default_rng(0).uniform(0.5, 2, norm.gamma.shape))
    pictures, classes = photos(5, BASES[base].smallest * 2), np.array([0, 1, 2, 0, 1])
    model = _at(model, base, BASES[base].smallest * 2)
    pooling = [each for each in model.layers if isinstance(each, keras.layers.GlobalAveragePooling2D)][-1]
    part = keras.Model(model.input, [pooling.input, model.get_layer("head").output])
    with tf.GradientTape() as tape:
        maps, logits = part(pictures, training=False)
        chosen = tf.reduce_sum(tf.gather(logits, classes, batch_dims=1))
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    wanted = np.maximum(tf.reduce_sum(weights * maps, axis=-1), 0)
    most = wanted.max(axis=(1, 2), keepdims=True)
    # In a random network nothing may speak for a class.
    assert (most > 0).any()
    wanted /= np.where(most > 0, most, 1)
    found = heat_maps(model, pictures, classes)
    assert found.shape == wanted.shape
    assert found.shape[1] > 1
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def _at(model, base, size):
    """The network at another size, where its last activations have more than one place."""
    larger = classifier(base, classes=3, image_size=size, dropout=0.1, weights=None)
    larger.set_weights(model.get_weights())
    return larger


def test_the_heat_is_where_the_evidence_is():
    # A network that sees red, in a photo that is red in one corner.
    photo = keras.Input((64, 64, 3), dtype="uint8", name="photo")
    maps = keras.layers.AveragePooling2D(16)(keras.layers.Rescaling(1 / 255)(photo))
    dropped = keras.layers.Dropout(0.1, name="head_dropout")(keras.layers.GlobalAveragePooling2D()(maps))
    head = keras.layers.Dense(2, name="head")
    model = keras.Model(photo, keras.layers.Softmax()(head(dropped)))
    head.set_weights([np.array([[1.0, -1], [0, 0], [0, 0]]), np.zeros(2)])
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[0, :16, 48:, 0] = 255
    (heat,) = heat_maps(model, picture, np.array([0]))
    wanted = np.zeros((4, 4))
    wanted[0, 3] = 1
    assert np.array_equal(heat, wanted)
    # Nothing speaks for the other class.
    assert not heat_maps(model, picture, np.array([1])).any()
