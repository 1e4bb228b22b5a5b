import keras
import numpy as np
import pytest
from keras import layers, ops

from kerastk.errors import GradientError, RecipeError
from kerastk.testing import check_gradients

NORMAL = np.random.default_rng(3).normal
PHOTOS, ROWS, SERIES = NORMAL(size=(2, 5, 5, 2)), NORMAL(size=(3, 4)), NORMAL(size=(2, 4, 3))
MASK = np.array([[True, True, True, False], [True, True, False, False]])


class Square(layers.Layer):
    """x squared, times `wrong` backwards."""

    def __init__(self, wrong=1.0, **kwargs):
        super().__init__(**kwargs)
        self.wrong = wrong

    def call(self, inputs):
        @ops.custom_gradient
        def square(x):
            return x * x, lambda upstream, *_: 2 * x * self.wrong * (upstream if upstream is not None else 1)

        return square(inputs)

    def get_config(self):
        return {**super().get_config(), "wrong": self.wrong}


class Forgetful(layers.Dense):
    """A dense layer whose bias gets no gradient."""

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel) + ops.stop_gradient(self.bias) * 1.0


class Cast(layers.Layer):
    def call(self, inputs):
        return (
            ops.cast(ops.cast(inputs, "float32") * 3, self.to) if hasattr(self, "to") else ops.cast(inputs, "float32")
        )


class CastBack(Cast):
    to = "float64"


class Noisy(layers.Layer):
    def call(self, inputs):
        return inputs * np.random.default_rng().normal()


RIGHT = {
    "dense": (layers.Dense(3, activation="tanh"), ROWS),
    "convolution": (layers.Conv2D(2, 3, activation="gelu"), PHOTOS),
    "lstm": (layers.LSTM(3, return_sequences=True), SERIES),
    "bidirectional": (layers.Bidirectional(layers.GRU(2)), SERIES),
    "layer normalisation": (layers.LayerNormalization(), ROWS),
    "batch normalisation": (layers.BatchNormalization(), PHOTOS),
    "maximum": (layers.MaxPooling2D(2), PHOTOS),
    "softmax": (layers.Softmax(), ROWS),
    "attention of three": (layers.MultiHeadAttention(2, 3), (SERIES, SERIES[:, :2])),
    "list": (layers.Concatenate(), [ROWS, 2 * ROWS]),
    "embedding": (layers.Embedding(6, 3), np.array([[1, 2, 2], [0, 5, 1]])),
    "half precision": (layers.Dense(3, dtype="mixed_bfloat16"), ROWS.astype("float16")),
    "nested": (
        keras.Sequential([layers.Dense(3, activation="selu"), layers.LayerNormalization(), layers.Dense(1)]),
        ROWS,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_layer_passes(name):
    if name == "attention of three" and keras.backend.backend() == "jax":
        pytest.skip("JAX's own attention takes its softmax in float32")
    layer, inputs = RIGHT[name]
    found = check_gradients(layer, inputs, training=name == "batch normalisation")
    assert found.error < 1e-5
    assert found.compared > 0
    # The layer itself is neither built nor moved to another precision; nor is Keras.
    assert not layer.built or name in ("softmax", "maximum", "list")
    assert layer.dtype_policy.name == ("mixed_bfloat16" if name == "half precision" else "float32")
    assert keras.config.floatx() == keras.config.dtype_policy().name == "float32"


def test_every_input_and_trainable_variable_is_compared_and_no_integer_input():
    assert check_gradients(layers.Dense(3), ROWS).compared == ROWS.size + 4 * 3 + 3
    frozen = layers.Dense(3, trainable=False)
    assert check_gradients(frozen, ROWS).compared == ROWS.size
    assert check_gradients(layers.Embedding(6, 3), np.array([[1, 2]])).compared == 6 * 3
    assert check_gradients(layers.Dense(3), ROWS, most=5).compared == 5 + 5 + 3


def test_a_built_layer_is_checked_with_its_own_weights():
    layer = layers.Dense(3)
    layer(ROWS.astype("float32"))
    layer.set_weights([np.zeros((4, 3)), np.zeros(3)])
    # With a kernel of zeros the inputs have a gradient of zero, so a wrong one at the bias is the largest.
    place = check_gradients(layer, ROWS, tolerance=1.0)
    assert place.place != "inputs[0]"
    wrong = Forgetful(3)
    wrong(ROWS.astype("float32"))
    with pytest.raises(GradientError):
        check_gradients(wrong, ROWS)
    assert all(variable.dtype == "float32" for variable in wrong.variables)


def test_dropout_is_checked_with_its_mask_held_fast():
    found = check_gradients(layers.Dropout(0.5, seed=4), ROWS, training=True)
    assert found.error < 1e-5
    assert check_gradients(layers.Dropout(0.5), ROWS).error < 1e-5


def test_a_wrong_gradient_is_caught_with_place_numbers_and_tolerance():
    inputs = np.array([[1.0, 2.0], [3.0, -0.5]])
    assert check_gradients(Square(), inputs).error < 1e-5
    with pytest.raises(GradientError, match=r"^[^\n]*gradient of wrong by inputs\[\d, \d\] is .*tolerance 1e-05\.$"):
        check_gradients(Square(1.001, name="wrong"), inputs)
    check_gradients(Square(1.001), inputs, tolerance=0.01)
    with pytest.raises(AssertionError, match="bias"):
        check_gradients(Forgetful(3), ROWS)
    # Both numbers, of which the automatic one is 1.5 times as large.
    with pytest.raises(GradientError) as caught:
        check_gradients(Square(1.5), np.array([2.0]))
    words = str(caught.value).replace(",", "").split()
    automatic, numeric = float(words[words.index("is") + 1]), float(words[words.index("give") + 1].rstrip(":"))
    assert automatic / numeric == pytest.approx(1.5, rel=1e-5)


def test_a_kink_is_called_one():
    assert check_gradients(layers.ReLU(), np.array([[-1.0, 2.0]])).error < 1e-5
    with pytest.raises(GradientError, match=r"slopes .* a kink\?"):
        check_gradients(layers.ReLU(), np.array([[0.0, 2.0]]))


def test_losses_are_checked_by_their_predictions():
    truth = np.eye(3)[[0, 2]]
    logits = NORMAL(size=(2, 3))
    for loss in (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        keras.losses.MeanSquaredError(),
        keras.losses.mean_squared_error,
        lambda y_true, y_pred: ops.sum(ops.square(y_true - y_pred)),
    ):
        assert check_gradients(loss, (truth, logits)).compared == 6
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert check_gradients(sparse, (np.array([1, 2]), logits)).error < 1e-5


def test_a_wrong_loss_is_caught():
    class Wrong(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.square(y_pred) - y_true * ops.stop_gradient(y_pred), axis=-1)

    with pytest.raises(GradientError, match=r"y_pred\[\d, \d\]"):
        check_gradients(Wrong(), (np.ones((2, 3)), NORMAL(size=(2, 3))))

    def halved(y_true, y_pred):
        return ops.square(y_true - y_pred) / 2 + ops.stop_gradient(y_pred)

    with pytest.raises(GradientError, match="gradient of halved by y_pred"):
        check_gradients(halved, (np.ones((2, 3)), NORMAL(size=(2, 3))))


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (Noisy(), ROWS, "another result each time"),
        (Cast(), ROWS, "casts to float32 by itself"),
        (layers.Flatten(), np.array([[1, 2]]), "no floating-point input"),
        (layers.Flatten(), np.zeros((0, 3)), "empty arrays"),
        (keras.losses.MeanSquaredError(), ROWS, "y_true, y_pred"),
        (layers.Discretization(bin_boundaries=[0.0]), ROWS, "no floating-point output; it gives int"),
    ],
    ids=["noisy", "cast", "integers", "empty", "loss", "no output"],
)
def test_what_cannot_be_checked_is_refused_in_a_line(layer, inputs, message):
    with pytest.raises(RecipeError, match=rf"^[^\n]*{message}[^\n]*$"):
        check_gradients(layer, inputs)


def test_a_layer_that_hides_its_arguments_is_refused():
    class Hidden(layers.Layer):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def get_config(self):
            return {}

    with pytest.raises(RecipeError, match="cannot be rebuilt in float64 from its get_config"):
        check_gradients(Hidden(3), ROWS)


def test_a_layer_that_computes_in_float32_in_between_fails():
    with pytest.raises(GradientError):
        check_gradients(CastBack(), ROWS)
