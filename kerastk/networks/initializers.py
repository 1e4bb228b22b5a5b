"""Initialisers by name: what the first weights of a layer are drawn from."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from kerastk.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Initializer:
    """How it is made, and the variance of a weight by how many inputs and outputs a unit of the layer has."""

    make: Callable[[int | None], keras.initializers.Initializer]
    variance: str
    source: str


INITIALIZERS = {
    "he": Initializer(
        make=lambda seed: keras.initializers.HeNormal(seed=seed), variance="2 / inputs",
        source="He et al. 2015, arXiv:1502.01852; for relu and its kin",
    ),
    "glorot": Initializer(
        make=lambda seed: keras.initializers.GlorotUniform(seed=seed), variance="2 / (inputs + outputs)",
        source="Glorot and Bengio 2010, PMLR 9:249; for tanh, sigmoid and what is linear",
    ),
    "normal": Initializer(
        make=lambda seed: keras.initializers.RandomNormal(stddev=0.05, seed=seed), variance="0.05^2",
        source="a normal distribution, whatever the size of the layer",
    ),
    "uniform": Initializer(
        make=lambda seed: keras.initializers.RandomUniform(-0.05, 0.05, seed=seed), variance="0.05^2 / 3",
        source="from -0.05 to 0.05, whatever the size of the layer",
    ),
}  # fmt: skip


def initializer(name: str, *, seed: int | None = None) -> keras.initializers.Initializer:
    """The initialiser of this name; without a `seed` its draws follow from `keras.utils.set_random_seed`.

    Take a new one for each layer: Keras gives the same numbers to all layers that share one.

    Raises:
        RecipeError: no initialiser of this name.

    >>> initializer("he")((512, 64)).std()  # (2 / 512)^0.5
    0.0625
    """
    if name not in INITIALIZERS:
        raise RecipeError(f"initialiser must be one of {', '.join(INITIALIZERS)}; got {name!r}.")
    return INITIALIZERS[name].make(seed)
