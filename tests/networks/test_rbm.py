import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kerastk.networks.autoencoder import Standard, autoencoder, dense_pairs
from kerastk.networks.rbm import RBM, unroll
from kerastk.training.reconstruction import compiled


def network(shape=(2, 3, 1), widths=(4,), latent=2, standard=None):
    keras.utils.set_random_seed(2)
    model = autoencoder(shape, kind="dense", widths=widths, latent=latent, activation="sigmoid", standard=standard)
    random = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([random.normal(size=each.shape) * 0.7 for each in layer.get_weights()])
    return model


def machine(model, number=0, visible="binary", hidden="binary"):
    up, down = dense_pairs(model)[number]
    return RBM(keras.Model(model.input, up.input), up, down, visible=visible, hidden=hidden)


def energies(rbm, visible):
    """Minus the log of the sum over all hidden states of exp(-energy), by enumeration."""
    weight, above, below = (np.array(each, np.float64) for each in (rbm.weight, rbm.hidden_bias, rbm.visible_bias))
    found = []
    for seen in visible:
        terms = []
        for hidden in itertools.product((0, 1), repeat=len(above)):
            hidden = np.array(hidden)
            own = -seen @ below if rbm.visible == "binary" else np.square(seen - below).sum() / 2
            terms.append(-(own - hidden @ above - seen @ weight @ hidden))
        found.append(-np.logaddexp.reduce(terms))
    return np.array(found)


@pytest.mark.parametrize("visible", ["binary", "gaussian"])
def test_free_energy_is_that_of_all_hidden_states(visible):
    rbm = machine(network(), visible=visible)
    seen = np.random.default_rng(1).random((5, 6)).astype("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(rbm.free_energy(seen)), energies(rbm, seen), atol=1e-5)


def test_free_energy_with_gaussian_hidden_units_is_the_integral():
    rbm = machine(network(latent=1), number=1, hidden="gaussian")
    seen = np.random.default_rng(1).random((3, 4)).astype("float32")
    weight, above, below = (np.array(each, np.float64) for each in (rbm.weight, rbm.hidden_bias, rbm.visible_bias))
    grid = np.linspace(-12, 12, 20001)
    expected = []
    for each in seen.astype(np.float64):
        energy = np.square(grid - above[0]) / 2 - each @ below - (each @ weight)[0] * grid
        expected.append(-np.log(np.trapezoid(np.exp(-energy), grid)))
    found = ops.convert_to_numpy(rbm.free_energy(seen))
    # But for what is the same for all that is visible.
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-4)


def test_the_gradient_is_that_of_contrastive_divergence():
    """Of the mean over a batch: <v h> of the data less <v h> of the chain, h being its probability."""
    model = network()
    rbm = machine(model)
    items = np.random.default_rng(3).integers(0, 256, (7, 2, 3, 1), np.uint8)
    draws = np.random.default_rng(4).random((7, 1, 4), np.float32)
    before = [np.array(each) for each in (rbm.weight, rbm.hidden_bias, rbm.visible_bias)]
    rbm.compile(optimizer=keras.optimizers.SGD(1.0), **compiled(("loss", "error")))
    rbm.train_on_batch({"item": items, "target": items, "draws": draws}, np.zeros(7))
    after = [np.array(each) for each in (rbm.weight, rbm.hidden_bias, rbm.visible_bias)]

    weight, above, below = (each.astype(np.float64) for each in before)
    sigmoid = lambda values: 1 / (1 + np.exp(-values))  # noqa: E731
    seen = items.reshape(7, 6) / 255
    on = sigmoid(seen @ weight + above)
    drawn = (draws[:, 0] < on).astype(float)
    again = sigmoid(drawn @ weight.T + below)
    on_again = sigmoid(again @ weight + above)
    steps = [(seen.T @ on - again.T @ on_again) / 7, (on - on_again).mean(axis=0), (seen - again).mean(axis=0)]
    for was, now, step in zip(before, after, steps, strict=True):
        np.testing.assert_allclose(now - was, step, atol=1e-5)


def test_more_steps_walk_further():
    rbm = machine(network())
    items = np.random.default_rng(3).integers(0, 256, (5, 2, 3, 1), np.uint8)
    draws = np.random.default_rng(4).random((5, 3, 4), np.float32)
    one = ops.convert_to_numpy(rbm({"item": items, "draws": draws[:, :1]}))
    three = ops.convert_to_numpy(rbm({"item": items, "draws": draws}))
    assert not np.allclose(one[:, 0], three[:, 0])
    # The error is that of the first reconstruction in both.
    np.testing.assert_allclose(one[:, 1], three[:, 1], rtol=1e-6)


def test_only_the_machine_is_trained():
    model = network(widths=(5, 4))
    rbm = machine(model, number=1)
    assert {each.path for each in rbm.trainable_variables} == {"encoder_2/kernel", "encoder_2/bias", "decoder_2/bias"}
    assert rbm.weight is dense_pairs(model)[1][0].kernel


def test_it_learns_what_its_data_are_like():
    """Of two patterns and their likes it gives lower free energy to those than to noise."""
    model = network(shape=(4, 4, 1), widths=(8,))
    for layer in model.layers:
        layer.set_weights([each * 0.05 for each in layer.get_weights()])
    random = np.random.default_rng(0)
    patterns = random.integers(0, 2, (2, 16)) * 255
    items = patterns[random.integers(0, 2, 400)].reshape(400, 4, 4, 1).astype(np.uint8)
    rbm = machine(model)
    rbm.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), **compiled(("loss", "error")))
    for _ in range(120):
        chosen = random.integers(0, 400, 50)
        draws = random.random((50, 1, 8), np.float32)
        rbm.train_on_batch({"item": items[chosen], "target": items[chosen], "draws": draws}, np.zeros(50))
    noise = random.integers(0, 2, (200, 16)).astype("float32")
    known = ops.convert_to_numpy(rbm.free_energy((patterns / 255).astype("float32")))
    assert known.max() < np.quantile(ops.convert_to_numpy(rbm.free_energy(noise)), 0.02)


def test_unrolling_turns_the_kernel_over():
    up, down = dense_pairs(network())[0]
    unroll(up, down)
    np.testing.assert_array_equal(np.array(down.kernel), np.array(up.kernel).T)


def test_of_rows_the_machine_sees_standardised_numbers():
    standard = Standard(np.array([10.0, -3.0]), np.array([2.0, 0.5]))
    model = network(shape=(2,), widths=(4,), latent=1, standard=standard)
    rbm = machine(model, visible="gaussian")
    rows = np.array([[12.0, -3.0]], np.float32)
    np.testing.assert_allclose(ops.convert_to_numpy(rbm.below(rows)), [[1.0, 0.0]], atol=1e-5)


def test_units_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="binary or gaussian"):
        machine(network(), visible="poisson")
