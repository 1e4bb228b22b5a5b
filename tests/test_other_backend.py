"""A choice of what other modules test on TensorFlow, once more on JAX, in one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHOICE = {
    "test_testing.py": "dense or dropout or caught",
    "networks/test_maxout.py": "gradients or same",
    "networks/test_crf.py": "enumeration or gradients or padding or learns or same or float32",
    "networks/test_tagger.py": "xla or equally or more_padding",
    "networks/test_autoencoder.py": "nearest or halves or same",
    "networks/test_rbm.py": "free_energy or contrastive or learns",
    "training/test_reconstruction.py": "formulas or variational or jacobian or trains or gradients",
    "training/test_losses.py": "agrees or (formula and focal-None-weighted-0.1) or (nan and 2.0)",
    "training/test_schedules.py": "formula or beyond or bit_for_bit",
    "training/test_optimizers.py": "muon-0.2 or (averages and False-1)",
}


@pytest.mark.slow
def test_gradients_layers_losses_schedules_and_optimizers_on_jax():
    chosen = " or ".join(f"({Path(name).name.split('.')[0]} and ({words}))" for name, words in CHOICE.items())
    files = [str(HERE / name) for name in CHOICE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files],
        capture_output=True, text=True, cwd=HERE.parent, env=os.environ | {"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 30
