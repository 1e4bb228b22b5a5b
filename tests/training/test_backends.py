import importlib.util
import os
import subprocess
import sys

import pytest

CODE = """
import sys, keras, kerastk
assert keras.backend.backend() == sys.argv[3]
recipe = kerastk.Finetune(
    data=sys.argv[1], runs=sys.argv[2], base="mobilenet_0.25", weights="none", image_size=32, augment="light", epochs=1,
    threads=2, histograms=True, gradient_norms=True,
)
run = kerastk.train(recipe, show=False)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(str(run.events / "train"), size_guidance={"tensors": 0}).Reload()
from tensorboard.util.tensor_util import make_ndarray
values = {tag: [float(make_ndarray(each.tensor_proto)) for each in events.Tensors(tag)]
          for tag in events.Tags()["tensors"] if tag.startswith(("gradient_norm/", "learning_rate"))}
assert values.keys() == {"learning_rate", *("gradient_norm/" + part for part in (
    "all", "stage_1", "stage_2", "stage_3", "stage_4", "stage_5", "head"))}
# Those of each step.
assert all(len(set(found)) == 4 and min(found) >= 0 < max(found) for found in values.values()), values
assert any(tag.startswith("weights/") for tag in events.Tags()["tensors"])
again = kerastk.Finetune(data=sys.argv[1], runs=sys.argv[2], weights=str(run.path), epochs=1, unfreeze=1)
run = kerastk.train(again, show=False)
assert [row["phase"] for row in run.log] == ["probe", "finetune"]
answers = kerastk.load(run)([sys.argv[1] + "/0/0.png", sys.argv[1] + "/1/0.png"], top=4)
assert all(abs(sum(answer.probability for answer in each) - 1) < 1e-5 for each in answers)
print(answers[0][0].label, f"{answers[0][0].probability:.6f}", run.path)
"""


@pytest.mark.parametrize("backend", [pytest.param("jax", marks=pytest.mark.slow), "torch"])
def test_a_small_run_from_end_to_end(backend, digits, tmp_path):
    wanted = os.environ.get("KERAS_BACKEND", "jax")
    if backend != wanted or importlib.util.find_spec(backend) is None:
        pytest.skip(f"runs where KERAS_BACKEND={backend} and {backend} is installed")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(digits), str(tmp_path), backend],
        capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": backend},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    label, probability, path = done.stdout.split()[-3:]

    # The model answers the same on TensorFlow.
    code = "import sys, kerastk; print(*kerastk.load(sys.argv[1])(sys.argv[2]))"
    other = subprocess.run(
        [sys.executable, "-c", code, path, str(digits / "0" / "0.png")],
        capture_output=True, text=True, check=True, env=os.environ | {"KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip
    assert other.stdout.split()[0] == label
    assert float(other.stdout.split()[1]) == pytest.approx(float(probability), abs=1e-4)
