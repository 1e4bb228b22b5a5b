import keras
import numpy as np
import pytest

from kerastk.errors import RecipeError
from kerastk.networks.initializers import INITIALIZERS, initializer

# Of a dense kernel, and of a 3 x 3 convolution, whose units have 9 times as many inputs and outputs as channels.
SHAPES = {(400, 300): (400, 300), (3, 3, 64, 128): (9 * 64, 9 * 128)}
VARIANCES = {
    "he": lambda inputs, outputs: 2 / inputs,
    "glorot": lambda inputs, outputs: 2 / (inputs + outputs),
    "normal": lambda inputs, outputs: 0.05**2,
    "uniform": lambda inputs, outputs: 0.05**2 / 3,
}


@pytest.mark.parametrize("shape", SHAPES, ids=["dense", "convolution"])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_weights_have_the_mean_and_the_variance_of_the_formula(name, shape):
    weights = np.array(initializer(name, seed=1)(shape), np.float64)
    wanted = VARIANCES[name](*SHAPES[shape])
    # Of 70,000 draws and more the variance is known to about one percent.
    assert weights.var() == pytest.approx(wanted, rel=0.03)
    assert abs(weights.mean()) < 4 * np.sqrt(wanted / weights.size)


def test_uniform_ones_have_bounds():
    for name, bound in (("uniform", 0.05), ("glorot", np.sqrt(6 / 700))):
        weights = np.array(initializer(name, seed=1)((400, 300)))
        assert 0.999 * bound < np.abs(weights).max() <= bound


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_seed_decides_and_without_one_that_of_keras(name):
    def drawn(**seed):
        return np.array(initializer(name, **seed)((4, 3)))

    assert np.array_equal(drawn(seed=3), drawn(seed=3))
    assert not np.array_equal(drawn(seed=3), drawn(seed=4))
    keras.utils.set_random_seed(5)
    first, second = drawn(), drawn()
    keras.utils.set_random_seed(5)
    assert np.array_equal(drawn(), first)
    assert not np.array_equal(first, second)


def test_another_name_is_refused():
    with pytest.raises(RecipeError, match="initialiser must be one of he, glorot, normal, uniform; got 'xavier'"):
        initializer("xavier")
