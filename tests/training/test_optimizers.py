import keras
import numpy as np
import pytest

from kerastk.errors import RecipeError
from kerastk.training.optimizers import OPTIMIZERS, optimizer
from kerastk.training.schedules import schedule

RANDOM = np.random.default_rng(8)
START, CURVES = RANDOM.normal(size=(3, 2)), RANDOM.uniform(0.5, 3, size=(3, 2))
RATE, DECAY, STEPS = 0.03, 0.2, 6


def _sgd(w, g, s, t, momentum=0.9, nesterov=False):
    s["m"] = momentum * s.get("m", 0) - RATE * g
    return w + (momentum * s["m"] - RATE * g if nesterov else s["m"])


def _rmsprop(w, g, s, t, rho=0.9, momentum=0.0):
    s["v"] = rho * s.get("v", 0) + (1 - rho) * g * g
    s["m"] = momentum * s.get("m", 0) + RATE * g / np.sqrt(s["v"] + 1e-7)
    return w - s["m"]


def _adagrad(w, g, s, t):
    s["v"] = s.get("v", 0.1) + g * g
    return w - RATE * g / np.sqrt(s["v"] + 1e-7)


def _adadelta(w, g, s, t):
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g * g
    change = -np.sqrt(s.get("d", 0) + 1e-7) / np.sqrt(s["v"] + 1e-7) * g
    s["d"] = 0.95 * s.get("d", 0) + 0.05 * change * change
    return w + RATE * change


def _moments(g, s, beta_1=0.9, beta_2=0.999):
    s["m"] = beta_1 * s.get("m", 0) + (1 - beta_1) * g
    s["v"] = beta_2 * s.get("v", 0) + (1 - beta_2) * g * g


def _adam(w, g, s, t, beta_1=0.9):
    _moments(g, s, beta_1)
    return w - RATE * s["m"] / (1 - beta_1**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-7)


def _nadam(w, g, s, t):
    _moments(g, s)
    now, following = (0.9 * (1 - 0.5 * 0.96**step) for step in (t, t + 1))
    s["u"] = s.get("u", 1) * now
    first = following * s["m"] / (1 - s["u"] * following) + (1 - now) * g / (1 - s["u"])
    return w - RATE * first / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-7)


def _lion(w, g, s, t):
    moved = w - RATE * np.sign(0.9 * s.get("m", 0) + 0.1 * g)
    s["m"] = 0.99 * s.get("m", 0) + 0.01 * g
    return moved


def _muon(w, g, s, t):
    s["m"] = 0.95 * s.get("m", 0) + g
    x = (g + 0.95 * s["m"]).T
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return w - RATE * x.T * 0.2 * np.sqrt(max(w.shape))


CASES = {
    "sgd": (_sgd, {}),
    "sgd nesterov": (lambda *given: _sgd(*given, momentum=0.8, nesterov=True), {"momentum": 0.8, "nesterov": True}),
    "sgd plain": (lambda *given: _sgd(*given, momentum=0.0), {"momentum": 0}),
    "rmsprop": (_rmsprop, {}),
    "rmsprop momentum": (lambda *given: _rmsprop(*given, momentum=0.5), {"momentum": 0.5}),
    "adagrad": (_adagrad, {}),
    "adadelta": (_adadelta, {}),
    "adam": (_adam, {}),
    "adam beta": (lambda *given: _adam(*given, beta_1=0.5), {"beta_1": 0.5}),
    "nadam": (_nadam, {}),
    "adamw": (_adam, {}),
    "lion": (_lion, {}),
    "muon": (_muon, {}),
}


def _followed(made, steps, name="kernel", start=START):
    """A weight after each of some steps down its quadratic."""
    weight = keras.Variable(start.astype("float32"), name=name)
    found = []
    for _ in range(steps):
        made.apply([keras.ops.convert_to_tensor(CURVES[: len(start)], "float32") * weight], [weight])
        found.append(np.array(weight))
    return found


def test_the_table_holds_every_optimizer_that_is_promised_and_each_is_followed():
    promised = ["sgd", "rmsprop", "adagrad", "adadelta", "adam", "nadam", "adamw", "lion", "muon"]
    assert list(OPTIMIZERS) == promised
    assert {case.split()[0] for case in CASES} == set(promised)
    for name in promised:
        assert type(optimizer(name, 0.1)).__name__.lower() == name


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("case", CASES)
def test_each_step_is_its_formula(case, decay):
    formula, numbers = CASES[case]
    name = case.split()[0]
    if name == "adam":
        decay = 0.0
    made = optimizer(name, RATE, **numbers, **({"weight_decay": decay} if decay else {}))
    weight, state = START, {}
    for step, found in enumerate(_followed(made, STEPS), 1):
        # Decoupled: from the weight, after the gradient was taken, and of no part in the moments.
        weight = formula(weight * (1 - RATE * decay), CURVES * weight, state, step)
        np.testing.assert_allclose(found, weight, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adam"])
@pytest.mark.parametrize("part", ["bias", "gamma", "beta", "kernel"])
def test_decay_spares_biases_and_scales(name, part):
    made = optimizer(name, 0.1, weight_decay=0.5, adamw_layers=())
    weight = keras.Variable(np.ones((2, 2), "float32"), name=part)
    made.apply([keras.ops.zeros((2, 2))], [weight])
    np.testing.assert_allclose(np.array(weight), 0.95 if part == "kernel" else 1.0, rtol=1e-6)


def test_muon_turns_matrices_alone_and_leaves_the_rest_to_adamw():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 1, name="convolution"),
            keras.layers.DepthwiseConv2D(3, name="depthwise"),
            keras.layers.Dense(5, name="matrix"),
            keras.layers.Dense(5, name="overhead"),
            keras.layers.Dense(2, name="head"),
        ],
        name="net",
    )
    made = {name: optimizer(name, RATE, weight_decay=DECAY) for name in ("muon", "adamw")}
    gradients = [keras.ops.convert_to_tensor(RANDOM.normal(size=each.shape), "float32") for each in model.weights]
    moved = {}
    for name, each in made.items():
        copies = [keras.Variable(weight, name=weight.name) for weight in model.weights]
        for copy, weight in zip(copies, model.weights, strict=True):
            copy._path = weight.path
        each.apply(gradients, copies)
        moved[name] = {copy.path.removeprefix("net/"): np.array(copy) for copy in copies}
    turned = {path for path in moved["muon"] if not np.allclose(moved["muon"][path], moved["adamw"][path], atol=1e-6)}
    assert turned == {"matrix/kernel", "overhead/kernel"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_batches_that_are_accumulated_are_one_larger_batch(name):
    gradients = [RANDOM.normal(size=(3, 2)).astype("float32") for _ in range(6)]
    weights = [keras.Variable(START.astype("float32"), name="kernel") for _ in range(2)]
    parts, whole = optimizer(name, RATE, accumulate=3, clipnorm=0.5), optimizer(name, RATE, clipnorm=0.5)
    for number, gradient in enumerate(gradients, 1):
        before = np.array(weights[0])
        parts.apply([keras.ops.convert_to_tensor(gradient)], [weights[0]])
        assert np.array_equal(before, np.array(weights[0])) == (number % 3 != 0)
    for first in (0, 3):
        whole.apply([keras.ops.convert_to_tensor(np.mean(gradients[first : first + 3], axis=0))], [weights[1]])
    np.testing.assert_allclose(np.array(weights[0]), np.array(weights[1]), rtol=1e-4, atol=1e-6)


def test_with_accumulation_a_schedule_is_asked_at_each_batch():
    curve = schedule("polynomial", peak=1.0, total_steps=8)
    made = optimizer("sgd", curve, momentum=0, accumulate=4)
    weight = keras.Variable([0.0], name="kernel")
    found = []
    for _ in range(8):
        made.apply([keras.ops.ones(1)], [weight])
        found.append(float(np.array(weight)[0]))
    # Updates at the 4th and 8th batch, numbers 3 and 7: rates of 5/8 and 1/8.
    np.testing.assert_allclose(found, [0, 0, 0, -0.625, -0.625, -0.625, -0.625, -0.75])
    assert int(made.iterations) == 2


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_averages_forget_by_the_update_and_take_the_models_place_at_the_end(accumulate, wrapped):
    inner = optimizer("sgd", 0.1, momentum=0, ema=0.8, accumulate=accumulate)
    made = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0) if wrapped else inner
    weight = keras.Variable([1.0], name="kernel")
    made.build([weight])
    apply = made.apply if keras.backend.backend() == "tensorflow" else inner.apply
    expected = None
    for number in range(5 * accumulate):
        apply([keras.ops.array([1.0 + number // accumulate])], [weight])
        if (number + 1) % accumulate == 0:
            value = float(np.array(weight)[0])
            expected = value if expected is None else 0.8 * expected + 0.2 * value
    if accumulate > 1:
        # The average goes on for the batches of the next update, in which nothing moves.
        for _ in range(accumulate - 1):
            apply([keras.ops.array([0.0])], [weight])
    made.finalize_variable_values([weight])
    assert float(np.array(weight)[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("adan", {}, "optimizer must be one of sgd, .*, muon; got 'adan'"),
        (
            "adam",
            {"momentum": 0.9},
            r"adam takes no momentum; it takes beta_1, beta_2, epsilon\. momentum is taken by sgd, rmsprop, muon",
        ),
        ("adam", {"weight_decay": 0.1}, r"adam takes no weight_decay; .* is taken by sgd, .*, adamw, lion, muon"),
        ("lion", {"epsilon": 0.1}, r"lion takes no epsilon; it takes beta_1, beta_2, weight_decay\."),
        ("sgd", {"momentum": 1.5}, "momentum of sgd must be from 0 to 0.999999; got 1.5"),
        ("sgd", {"momentum": "high"}, "momentum of sgd must be from 0 to 0.999999; got 'high'"),
        ("sgd", {"momentum": 0, "nesterov": True}, "nesterov is a kind of momentum; give sgd a momentum"),
        ("adamw", {"rate": 0.0}, "the learning rate must be more than 0; got 0"),
        ("adamw", {"accumulate": 1.5}, "accumulate must be a whole number of batches from 1; got 1.5"),
        ("adamw", {"ema": 1.0}, "ema must be from 0 to 0.999999; got 1.0"),
        ("adamw", {"clipnorm": 0.0}, "clipnorm must be from 1e-06 to"),
    ],
)
def test_a_wrong_combination_is_refused_with_what_the_optimizer_takes(name, values, message):
    with pytest.raises(RecipeError, match=rf"^[^\n]*{message}[^\n]*$"):
        optimizer(name, **{"rate": 0.1, **values})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_at_rates_that_are_scaled_by_the_table_each_gets_about_as_far(name):
    inputs, wanted = RANDOM.normal(size=(32, 4)), RANDOM.normal(size=(4, 3))
    weight = keras.Variable(np.zeros((4, 3), "float32"), name="kernel")
    made = optimizer(name, 0.02 * OPTIMIZERS[name].rate_scale)
    for _ in range(60):
        gradient = inputs.T @ (inputs @ (np.array(weight) - wanted)) / len(inputs)
        made.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
    left = np.mean(np.square(inputs @ (np.array(weight) - wanted))) / np.mean(np.square(inputs @ wanted))
    assert left < 0.8
