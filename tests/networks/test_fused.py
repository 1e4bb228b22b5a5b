import keras
import numpy as np
import pytest
import tensorflow as tf

from kerastk.networks.convnets import convnet
from kerastk.networks.fused import fuse

PHOTOS = np.random.default_rng(5).integers(0, 256, (8, 32, 32, 3), "uint8")
TRUTH = keras.utils.to_categorical([0, 1, 2, 0, 1, 2, 0, 1], 3)
CLASSES = 3


def maps(**options) -> keras.Model:
    """Two convolutions with a normalisation behind each, and a dense layer with one."""
    keras.utils.set_random_seed(2)
    values = inputs = keras.Input((8, 8, 3))
    for filters, activation in ((4, "gelu"), (6, "silu")):
        values = keras.layers.Conv2D(filters, 3)(values)
        values = keras.layers.Activation(activation)(keras.layers.BatchNormalization(**options)(values))
    values = keras.layers.BatchNormalization()(keras.layers.Dense(5)(keras.layers.GlobalMaxPooling2D()(values)))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(values))


def operations(model: keras.Model) -> list[tf.Operation]:
    """Those of a training step's forward pass."""
    values = tf.TensorSpec((4, *model.input_shape[1:]), model.input.dtype)
    step = tf.function(lambda values: model(values, training=True)).get_concrete_function(values)
    return step.graph.get_operations()


def kernels(model: keras.Model) -> int:
    """How many normalisations are fused."""
    return sum(operation.type == "FusedBatchNormV3" for operation in operations(model))


def compiled(model: keras.Model) -> int:
    """How many activations XLA compiles."""
    calls = [each for each in operations(model) if each.type.endswith("PartitionedCall")]
    return sum(each.get_attr("_XlaMustCompile") for each in calls)


@pytest.mark.parametrize(
    "options", [{}, {"scale": False, "epsilon": 1e-5}, {"center": False, "momentum": 0.5}], ids=str
)
def test_it_learns_as_keras_does(options):
    photos = np.random.default_rng(1).normal(2, 3, (8, 8, 8, 3)).astype("float32")
    found = []
    for fused in (False, True):
        model = maps(**options)
        if fused:
            fuse(model)
        assert (kernels(model), compiled(model)) == ((2, 2) if fused else (0, 0))
        model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss="categorical_crossentropy")
        losses = [float(model.train_on_batch(photos, TRUTH)) for _ in range(5)]
        found.append([losses, *model.get_weights(), model.predict_on_batch(photos)])
    # All of it: weights and moving statistics of each layer, and the answers that are made of them.
    for stock, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-3, atol=1e-5)
    assert found[0][0][0] - found[0][0][-1] > 0.1


@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_activation_and_its_derivative_are_kerass(activation, dtype):
    inputs = keras.Input((5, 7), dtype=dtype)
    model = keras.Model(inputs, keras.layers.Activation(activation, dtype=dtype)(inputs))
    fuse(model)
    assert compiled(model) == 1
    values = np.append(np.linspace(-30, 30, 69), 0.0).reshape(2, 5, 7)
    exact = tf.Variable(values, dtype="float64")
    ours = tf.Variable(values, dtype=dtype)
    with tf.GradientTape(persistent=True) as tape:
        expected = getattr(keras.activations, activation)(exact.value())
        found = model(ours.value())
    assert found.dtype == dtype
    assert found.shape == (2, 5, 7)
    near = {"float32": 1e-6, "bfloat16": 8e-3, "float16": 1e-3}[dtype]
    np.testing.assert_allclose(tf.cast(found, "float64"), expected, rtol=near, atol=near)
    slopes = (tape.gradient(each, of) for each, of in ((found, ours), (expected, exact)))
    np.testing.assert_allclose(*(tf.cast(each, "float64") for each in slopes), rtol=near, atol=near)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_with_16_bit_numbers_statistics_stay_of_32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = convnet("resnet20", (32, 32, 3), classes=CLASSES, dropout=0.0)
    finally:
        keras.config.set_dtype_policy("float32")
    stock = keras.models.clone_model(model)
    stock.set_weights(model.get_weights())
    fuse(model)
    assert kernels(model) == 19
    for each in (model, stock):
        each(PHOTOS, training=True)
    for ours, theirs in zip(model.non_trainable_weights, stock.non_trainable_weights, strict=True):
        assert ours.dtype == "float32"
        spread = np.abs(np.asarray(theirs)).max()
        np.testing.assert_allclose(ours, theirs, atol=0.03 * spread)


def test_what_is_saved_is_keras_own(tmp_path):
    model = maps()
    fuse(model)
    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    photos = np.random.default_rng(1).normal(size=(8, 8, 8, 3)).astype("float32")
    model.fit(photos, TRUTH, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (kernels(again), compiled(again)) == (0, 0)
    np.testing.assert_allclose(again.predict_on_batch(photos), model.predict_on_batch(photos), rtol=1e-5)


def test_frozen_statistics_are_used_and_stay():
    model = maps()
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    fuse(model)
    photos = np.random.default_rng(1).normal(size=(8, 8, 8, 3)).astype("float32")
    before = [np.array(weight) for weight in model.non_trainable_weights]
    assert kernels(model) == 0
    np.testing.assert_allclose(model(photos, training=True), model(photos, training=False), rtol=1e-5)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.non_trainable_weights, strict=True))


@pytest.mark.parametrize("options", [{"axis": 1}, {"renorm": True}, {"synchronized": True}], ids=str)
def test_another_kind_of_normalisation_stays_as_it_is(options):
    model = maps(**options)
    fuse(model)
    assert kernels(model) == 0
