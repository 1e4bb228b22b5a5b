import json

import numpy as np
import pytest

import kerastk
from kerastk.recipe import Classify

FAST = {"net": "fast-4", "epochs": 8, "batch_size": 32, "learning_rate": 5e-3, "augment": "none"}


@pytest.fixture(scope="session")
def digit_arrays(tmp_path_factory):
    """Real digits of five classes as a .npz file of grey images of 12 x 12 pixels, a test split among them."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    chosen = np.flatnonzero(loaded.target < 5)[:500]
    images = np.pad((loaded.images[chosen] * 15.9).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    labels = loaded.target[chosen]
    path = tmp_path_factory.mktemp("arrays") / "digits.npz"
    np.savez(path, x_train=images[:380], y_train=labels[:380], x_test=images[380:], y_test=labels[380:])
    return str(path)


@pytest.fixture(scope="session")
def classified(digit_arrays, tmp_path_factory):
    """A function that trains a classifier with some fields, once for each."""
    runs, made = tmp_path_factory.mktemp("runs"), {}

    def run(**fields):
        key = json.dumps(fields, sort_keys=True)
        if key not in made:
            given = {"data": digit_arrays, "split": "85/15", "deterministic": True, **FAST, **fields}
            made[key] = kerastk.train(Classify(runs=str(runs), **given), show=False)
        return made[key]

    return run
