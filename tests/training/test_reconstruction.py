import keras
import numpy as np
import pytest
from keras import ops

from kerastk.errors import RecipeError
from kerastk.networks.autoencoder import Standard, autoencoder, decoder, encoder
from kerastk.testing import check_gradients
from kerastk.training.losses import ssim
from kerastk.training.reconstruction import Column, FirstColumn, Objective, Reconstructing, compiled

SHAPE = (12, 11, 1)


def network(shape=SHAPE, **options):
    keras.utils.set_random_seed(4)
    given = {"kind": "dense", "widths": (16,), "latent": 3, "activation": "swish"} | options
    return autoencoder(shape, **given)


def asked(model, objective, **inputs):
    """The columns for five images, by name; and the images, the codes and the reconstructions."""
    items = np.random.default_rng(0).integers(0, 256, (5, *model.input.shape[1:]), np.uint8)
    given = {"item": items, "target": items, **inputs}
    found = ops.convert_to_numpy(Reconstructing(model, objective)(given))
    code = ops.convert_to_numpy(encoder(model)(given["item"]))
    made = ops.convert_to_numpy(decoder(model)(code)).astype(np.float64)
    return dict(zip(objective.columns, found.T, strict=True)), given["target"] / 255, code, made


def summed(values):
    return values.reshape(len(values), -1).sum(axis=1)


@pytest.mark.parametrize("loss", ["mse", "bce", "mae", "huber", "ssim"])
def test_a_loss_is_the_formulas_mean_over_the_values(loss):
    columns, target, _, made = asked(network(), Objective(loss=loss))
    difference = np.abs(made - target)
    expected = {
        "mse": np.square(difference),
        "bce": -target * np.log(made) - (1 - target) * np.log(1 - made),
        "mae": difference,
        "huber": np.square(difference) / 2,
        "ssim": 1 - ops.convert_to_numpy(ssim(made.astype("float32"), target.astype("float32")))[:, None],
    }[loss]
    np.testing.assert_allclose(columns["loss"], expected.reshape(5, -1).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(columns["error"], summed(np.square(difference)), rtol=1e-4)


def test_what_is_seen_may_be_another_than_what_is_wanted():
    model = network()
    seen = np.zeros((5, *SHAPE), np.uint8)
    columns, target, _, made = asked(model, Objective(loss="mse"), item=seen)
    assert np.ptp(made, axis=0).max() < 1e-6
    np.testing.assert_allclose(columns["error"], summed(np.square(made - target)), rtol=1e-4)


def test_a_weight_counts_what_was_hidden():
    weight = np.zeros((5, *SHAPE), np.float32)
    weight[:, :6] = 2
    columns, target, _, made = asked(network(), Objective(loss="mae"), weight=weight)
    np.testing.assert_allclose(columns["loss"], np.abs(made - target)[:, :6].reshape(5, -1).mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_a_variational_loss_is_beta_times_the_distance_and_the_likelihood(beta):
    model = network(variational=True)
    draws = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    columns, target, mean, _ = asked(model, Objective(loss="bce", beta=beta), draws=draws)
    items = np.rint(target * 255).astype("uint8")
    log_variance = ops.convert_to_numpy(model(items)["log_variance"]).astype(np.float64)
    made = ops.convert_to_numpy(decoder(model)(mean + np.exp(log_variance / 2) * draws)).astype(np.float64)
    nats = summed(-target * np.log(made) - (1 - target) * np.log(1 - made))
    kl = ((mean**2 + np.exp(log_variance) - 1 - log_variance) / 2).sum(axis=1)
    np.testing.assert_allclose(columns["nats"], nats, rtol=1e-4)
    np.testing.assert_allclose(columns["kl"], kl, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(columns["loss"], (nats + beta * kl) / target[0].size, rtol=1e-4)


def test_free_bits_cost_the_same_whatever_is_below_them():
    draws = np.zeros((5, 3), np.float32)
    model = network(variational=True)
    free, *_ = asked(model, Objective(loss="bce", beta=1.0, free_bits=50.0), draws=draws)
    np.testing.assert_allclose(free["loss"], (free["nats"] + 3 * 50) / np.prod(SHAPE), rtol=1e-5)
    none, *_ = asked(model, Objective(loss="bce", beta=1.0), draws=draws)
    np.testing.assert_allclose(none["loss"], (none["nats"] + none["kl"]) / np.prod(SHAPE), rtol=1e-5)


def test_squared_errors_are_a_likelihood_by_their_own_variance():
    columns, target, *_ = asked(network(variational=True), Objective(loss="mse", beta=0.0), draws=np.zeros((5, 3), "f"))
    values = target[0].size
    variance = columns["error"].mean() / values
    expected = values / 2 * np.log(2 * np.pi * variance) + columns["error"] / (2 * variance)
    np.testing.assert_allclose(columns["nats"], expected, rtol=1e-4)


def test_sparsity_sums_the_codes_or_the_divergences():
    columns, _, code, _ = asked(network(), Objective(loss="mse", sparsity=("l1", 0.0, 0.5)))
    np.testing.assert_allclose(columns["sparsity"], np.abs(code).sum(axis=1), rtol=1e-5)
    plain, *_ = asked(network(), Objective(loss="mse"))
    np.testing.assert_allclose(columns["loss"], plain["loss"] + 0.5 * columns["sparsity"], rtol=1e-5)
    columns, _, code, _ = asked(network(sigmoid_code=True), Objective(loss="mse", sparsity=("kl", 0.1, 0.5)))
    on = code.mean(axis=0).astype(np.float64)
    expected = (0.1 * np.log(0.1 / on) + 0.9 * np.log(0.9 / (1 - on))).sum()
    np.testing.assert_allclose(columns["sparsity"], np.full(5, expected), rtol=1e-4)


def test_contraction_is_the_squared_norm_of_the_jacobian_on_average():
    model = network(shape=(3, 3, 1), widths=(8,))
    objective = Objective(loss="mse", contraction=0.1)
    random = np.random.default_rng(1)
    item = random.integers(0, 256, (1, 3, 3, 1), np.uint8)
    count = 6000
    items = np.repeat(item, count, axis=0)
    draws = random.normal(size=(count, 3, 3, 1)).astype("float32")
    fitted = Reconstructing(model, objective)
    found = ops.convert_to_numpy(fitted({"item": items, "target": items, "draws": draws}))
    columns = dict(zip(objective.columns, found.T, strict=True))
    # By central differences, in what the network sees.
    inside = (item / 255).astype("float32")
    sides = []
    for place in range(9):
        step = np.zeros_like(inside)
        step.flat[place] = 1e-2
        high, low = (ops.convert_to_numpy(fitted.encoder(inside + sign * step)["code"]) for sign in (1, -1))
        sides.append((high - low)[0] / 2e-2)
    assert columns["contraction"].mean() == pytest.approx(np.square(sides).sum(), rel=0.06)
    plain, *_ = asked(model, Objective(loss="mse"))
    assert columns["loss"][0] > plain["loss"][0]


def test_rows_are_compared_in_standard_deviations():
    standard = Standard(np.array([10.0, -4.0]), np.array([2.0, 0.5]))
    model = network(shape=(2,), latent=1, standard=standard)
    rows = np.array([[12.0, -4.5], [8.0, -3.0]], np.float32)
    found = ops.convert_to_numpy(Reconstructing(model, Objective(loss="mse"))({"item": rows, "target": rows}))
    made = ops.convert_to_numpy(model(rows)["reconstruction"])
    np.testing.assert_allclose(found[:, 1], np.square((made - rows) / [2.0, 0.5]).sum(axis=1), rtol=1e-4)


def test_training_it_trains_the_network_and_logs_the_columns():
    model = network()
    fitted = Reconstructing(model, Objective(loss="mse"))
    fitted.compile(optimizer=keras.optimizers.Adam(0.01), **compiled(("loss", "error")))
    items = np.zeros((32, *SHAPE), np.uint8)
    items[:, 3:8, 2:6] = 255
    before = [np.array(each) for each in model.weights]
    inputs = {"item": items, "target": items}
    history = fitted.fit(inputs, np.zeros(32), epochs=30, batch_size=8, verbose=0).history
    assert history["error"][-1] < 0.2 * history["error"][0]
    np.testing.assert_allclose(history["error"], np.array(history["loss"]) * np.prod(SHAPE), rtol=1e-3)
    assert all(not np.array_equal(was, now) for was, now in zip(before, model.weights, strict=True))


def test_the_loss_and_the_metrics_go_by_column():
    answer = np.array([[1.0, 5.0, 9.0], [3.0, 7.0, 11.0]], np.float32)
    assert float(FirstColumn()(np.zeros(2), answer)) == 2
    column = Column(2, "kl")
    column.update_state(np.zeros(2), answer)
    assert float(column.result()) == 10
    assert Column.from_config(column.get_config()).number == 2


def test_ssim_is_one_for_equals_and_less_the_more_they_differ():
    random = np.random.default_rng(0)
    one = random.random((2, 16, 18, 3)).astype("float32")
    assert ops.convert_to_numpy(ssim(one, one)) == pytest.approx([1, 1], abs=1e-5)
    near, far = (np.clip(one + amount * random.normal(size=one.shape), 0, 1).astype("float32") for amount in (0.1, 0.5))
    found = [ops.convert_to_numpy(ssim(one, other)).max() for other in (near, far)]
    assert 1 > found[0] > found[1] > 0
    # Flat images: the formula's first factor alone, (2ab + c) / (a2 + b2 + c).
    flat = [np.full((1, 11, 11, 1), each, np.float32) for each in (0.2, 0.6)]
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(*flat)[0]) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(RecipeError, match="at least 11 pixels"):
        ssim(one[:, :8], one[:, :8])


def test_ssim_has_the_gradients_of_its_values():
    random = np.random.default_rng(0)
    check_gradients(lambda truth, made: 1 - ssim(made, truth), tuple(random.random((2, 12, 12, 1)) for _ in range(2)))
