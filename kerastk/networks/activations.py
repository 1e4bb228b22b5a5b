"""Activations by name, as layers; and the dense layer that ends in one."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from kerastk.errors import RecipeError
from kerastk.networks.initializers import initializer
from kerastk.networks.maxout import Maxout


@dataclass(frozen=True, kw_only=True)
class Activation:
    """How the layer is made, and what it computes of each number x."""

    make: Callable[[], keras.layers.Layer]
    formula: str
    source: str


ACTIVATIONS = {
    "relu": Activation(
        make=lambda: keras.layers.Activation("relu"), formula="max(x, 0)", source="Nair and Hinton 2010, ICML",
    ),
    # Keras's own slopes, 0.2 for the function and 0.3 for the layer, are not its authors'.
    "leaky_relu": Activation(
        make=lambda: keras.layers.LeakyReLU(negative_slope=0.01), formula="x, below 0 a hundredth of it",
        source="Maas et al. 2013, ICML",
    ),
    "elu": Activation(
        make=lambda: keras.layers.Activation("elu"), formula="x, below 0 exp(x) - 1",
        source="Clevert et al. 2015, arXiv:1511.07289",
    ),
    "selu": Activation(
        make=lambda: keras.layers.Activation("selu"), formula="1.0507 x, below 0 1.7581 (exp(x) - 1)",
        source="Klambauer et al. 2017, arXiv:1706.02515",
    ),
    "swish": Activation(
        make=lambda: keras.layers.Activation("silu"), formula="x / (1 + exp(-x))",
        source="Ramachandran et al. 2017, arXiv:1710.05941",
    ),
    "sigmoid": Activation(
        make=lambda: keras.layers.Activation("sigmoid"), formula="1 / (1 + exp(-x))",
        source="Rumelhart et al. 1986, Nature 323",
    ),
    "tanh": Activation(
        make=lambda: keras.layers.Activation("tanh"), formula="the hyperbolic tangent of x",
        source="LeCun et al. 1998, Proc. IEEE 86(11)",
    ),
    "gelu": Activation(
        make=lambda: keras.layers.Activation("gelu"), formula="x times the normal distribution function of x",
        source="Hendrycks and Gimpel 2016, arXiv:1606.08415",
    ),
}  # fmt: skip
# Maxout has weights of its own: it is the layer, not what follows one.
NAMES = (*ACTIVATIONS, "maxout")


def activation(name: str) -> keras.layers.Layer:
    """The activation of this name: any shape in, the same out, number by number.

    Raises:
        RecipeError: no activation of this name, or maxout, which `dense` makes.

    >>> float(activation("leaky_relu")(np.float32(-2)))
    -0.02
    """
    if name == "maxout":
        raise RecipeError("maxout learns its shape from the layer in front of it; take dense(units, name) for both.")
    if name not in ACTIVATIONS:
        raise RecipeError(f"activation must be one of {', '.join(NAMES)}; got {name!r}.")
    return ACTIVATIONS[name].make()


def dense(units: int, name: str, *, start: str = "he") -> keras.layers.Layer:
    """A dense layer that ends in the activation of this name: (..., features) -> (..., units).

    With maxout each unit is the largest of two linear functions (Goodfellow et al. 2013, arXiv:1302.4389). `start` is
    the initialiser of the kernel (`initializers.INITIALIZERS`).

    Raises:
        RecipeError: no activation or initialiser of this name.
    """
    if name == "maxout":
        return Maxout(units, kernel_initializer=initializer(start))
    return keras.layers.Dense(units, activation=activation(name), kernel_initializer=initializer(start))
