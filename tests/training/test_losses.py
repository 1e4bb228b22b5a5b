import keras
import numpy as np
import pytest
from keras import ops
from sklearn.utils.class_weight import compute_class_weight

from kerastk.errors import DataError, RecipeError
from kerastk.testing import check_gradients
from kerastk.training.losses import FocalCrossEntropy, class_weights, loss

RANDOM = np.random.default_rng(2)
LOGITS = RANDOM.normal(size=(5, 4)) * 3
HARD = np.eye(4)[[0, 3, 1, 1, 2]]
SOFT = RANDOM.dirichlet(np.ones(4), 5)
WEIGHTS = [0.5, 1.0, 2.0, 4.0]


def _formula(labels, logits, gamma=0.0, smoothing=0.0, weights=(1, 1, 1, 1)):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = labels * (1 - smoothing) + smoothing / 4
    return float((np.array(weights) * labels * (1 - p) ** gamma * -np.log(p)).sum(axis=1).mean())


@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(("name", "gamma"), [("cross_entropy", None), ("focal", None), ("focal", 0.5), ("focal", 0.0)])
def test_classifying_losses_are_their_formula_and_their_gradients_are_right(labels, smoothing, weights, name, gamma):
    made = loss(name, label_smoothing=smoothing, class_weights=weights, gamma=gamma)
    power = {"cross_entropy": 0.0, "focal": 2.0}[name] if gamma is None else gamma
    expected = _formula(labels, LOGITS, power, smoothing, weights or (1, 1, 1, 1))
    assert float(made(labels, LOGITS)) == pytest.approx(expected, rel=1e-5)
    if labels is SOFT and smoothing:
        check_gradients(made, (labels, LOGITS))


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_losses_of_values_are_their_formula_and_their_gradients_are_right(name):
    truth, guess = RANDOM.normal(size=(6, 2)), 2 * RANDOM.normal(size=(6, 2))
    error = np.abs(truth - guess)
    formula = {"mse": error**2, "mae": error, "huber": np.where(error <= 1, error**2 / 2, error - 0.5)}[name]
    assert float(loss(name)(truth, guess)) == pytest.approx(formula.mean(), rel=1e-5)
    check_gradients(loss(name), (truth, guess))


def test_focal_agrees_with_keras_where_keras_does_not_clip():
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=WEIGHTS, gamma=1.5, from_logits=True, label_smoothing=0.1)
    ours = loss("focal", gamma=1.5, class_weights=WEIGHTS, label_smoothing=0.1)
    assert float(ours(HARD, LOGITS)) == pytest.approx(float(theirs(HARD, LOGITS)), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_what_is_wrong_by_far_still_learns_and_what_is_right_by_far_gives_no_nan(gamma):
    """Trained by it, wrong logits move; Keras's focal loss gives them a gradient of zero."""

    def moved(made, labels):
        layer = keras.layers.Dense(3, use_bias=False)
        model = keras.Sequential([keras.Input((1,)), layer])
        layer.set_weights([np.array([[40.0, 0.0, 0.0]])])
        model.compile(keras.optimizers.SGD(1.0), loss=made)
        model.fit(np.ones((1, 1), "float32"), labels, verbose=0)
        return np.asarray(layer.kernel)[0] - [40, 0, 0]

    wrong, right = np.eye(3)[[1]], np.eye(3)[[0]]
    np.testing.assert_allclose(moved(loss("focal", gamma=gamma), wrong), [-1, 1, 0], atol=1e-3)
    np.testing.assert_allclose(moved(loss("focal", gamma=gamma), right), 0, atol=1e-3)
    theirs = keras.losses.CategoricalFocalCrossentropy(gamma=gamma, alpha=1.0, from_logits=True)
    if gamma == 2.0:
        np.testing.assert_allclose(moved(theirs, wrong), 0, atol=1e-3)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "mse", "mae", "huber"])
def test_they_compute_in_float32_from_any_precision(name):
    made = loss(name)
    # In bfloat16 the sum of these squares, 10001, would be 9984.
    found = made(ops.cast([[100.0, 0.0], [1.0, 0.0]], "bfloat16"), ops.cast([[0.0, 0.0], [0.0, 0.0]], "bfloat16"))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    if name == "mse":
        assert float(found) == 10001 / 4


@pytest.mark.parametrize("counts", [[10, 10], [1, 2, 7], [1, 100, 3, 3]], ids=str)
def test_class_weights_are_those_that_scikit_learn_calls_balanced(counts):
    weights = class_weights(counts)
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(weights, expected)
    assert weights[labels].mean() == pytest.approx(1)


def test_class_weights_need_a_photo_of_each_class():
    with pytest.raises(DataError, match="class 1 has 0"):
        class_weights([3, 0, 2])
    with pytest.raises(DataError, match="there are no classes"):
        class_weights([])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("crossentropy", {}, "one of cross_entropy, focal, mse, mae, huber; got 'crossentropy'"),
        ("cross_entropy", {"gamma": 2.0}, "gamma belongs to the loss focal"),
        ("mse", {"label_smoothing": 0.1}, "label_smoothing would not be used by the loss mse"),
        ("huber", {"class_weights": [1.0]}, "class_weights would not be used by the loss huber"),
        ("focal", {"gamma": -1.0}, "gamma must be 0 or more; got -1"),
        ("focal", {"class_weights": [1.0, -1.0]}, r"class_weights must be numbers from 0; got \[1.0, -1.0\]"),
        ("focal", {"label_smoothing": 1.0}, "label_smoothing must be from 0 to less than 1; got 1"),
    ],
)
def test_what_would_not_be_used_is_refused(name, values, message):
    with pytest.raises(RecipeError, match=message):
        loss(name, **values)


def test_weights_for_other_classes_are_refused():
    with pytest.raises(RecipeError, match="one number for each of 4 classes; got 2"):
        loss("cross_entropy", class_weights=[1.0, 2.0])(HARD, LOGITS)


def test_the_loss_survives_being_saved():
    made = loss("focal", class_weights=WEIGHTS, gamma=1.5, label_smoothing=0.05)
    again = keras.losses.deserialize(keras.losses.serialize(made))
    assert isinstance(again, FocalCrossEntropy)
    assert float(again(HARD, LOGITS)) == float(made(HARD, LOGITS))
