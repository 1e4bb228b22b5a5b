import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest

from kerastk.networks.bases import BASES
from kerastk.networks.classifier import classifier
from tests.conftest import woken

# The smallest of each family that builds in seconds; the others are for the slow run.
SMALL = (
    "mini", "vgg16", "resnet50", "resnet50_v2", "inception_v3", "xception", "mobilenet_0.25", "mobilenet_v2_0.35",
    "mobilenet_v3_small_0.75", "densenet121", "efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny",
)  # fmt: skip

KERAS_OWN = [name for name, row in BASES.items() if not row.ships]
# Of these, those that compile in a second or two.
QUICK = {"mini", "vgg16", "mobilenet_0.25", "mobilenet_v2_0.35", "efficientnet_b0"}


def pytest_generate_tests(metafunc):
    """`member` is a base of every quick family, and in the slow run every base; `keras_member` one of Keras's own."""
    for fixture, names in (("member", list(BASES)), ("keras_member", KERAS_OWN)):
        if fixture in metafunc.fixturenames:
            rows = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]
            metafunc.parametrize(fixture, rows)


@functools.lru_cache(maxsize=32)
def _graph(base: str, image_size: int) -> keras.Model:
    with keras.StatelessScope(initialize_variables=False):
        return classifier(base, classes=3, image_size=image_size, dropout=0.1, weights=None)


def _small(base: str) -> keras.Model:
    return _kept(base) if base in SMALL else _kept.__wrapped__(base)


@functools.cache
def _kept(base: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = classifier(base, classes=3, image_size=BASES[base].smallest, dropout=0.1, weights=None)
    return woken(model, _noise(8, BASES[base].smallest))


def _noise(count: int, size: int) -> np.ndarray:
    # Smooth on its large scale, so that photos differ by more than noise averages out to.
    coarse = np.random.default_rng(7).integers(0, 256, (count, 4, 4, 3), "uint8")
    return coarse.repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)[:, :size, :size]


@pytest.fixture(scope="session")
def graph() -> Callable[[str, int], keras.Model]:
    """(base, image size) -> a classifier without values for its weights: as quick as its layers are many."""
    return _graph


@pytest.fixture(scope="session")
def small() -> Callable[[str], keras.Model]:
    """base -> a random classifier of 3 classes at its smallest size; shared, and one test trains it."""
    return _small


@pytest.fixture(scope="session")
def photos() -> Callable[[int, int], np.ndarray]:
    """(count, size) -> uint8 noise in 16 squares, always the same."""
    return _noise
