"""The last model, kept beside the best one."""

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import kerastk
from kerastk.cli import commands
from kerastk.errors import RunError
from kerastk.evaluation.metrics import cross_entropy
from tests.conftest import SMALL


class Noted(keras.callbacks.Callback):
    """Notes the weights in which each epoch ends; the head of the last epoch begins with the wrong sign."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            head = self.model.get_layer("head")
            head.set_weights([-weight for weight in head.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append([np.array(weight) for weight in self.model.weights])


def answers(run, folder, **options):
    """The true classes of the validation photos, and the probabilities that the last model gives them."""
    predictor = kerastk.load(run, last=True, **options)
    photos = [photo for photo in run.data["files"] if photo["split"] == "val"]
    truth = np.array([predictor.classes.index(photo["label"]) for photo in photos])
    return truth, predictor.scores(np.stack([predictor.pixels(folder / photo["path"]) for photo in photos]))


@pytest.fixture(scope="module")
def kept(digits, tmp_path_factory):
    """A run whose best epoch is not its last, and its weights after each epoch."""
    noted, folder = Noted(), tmp_path_factory.mktemp("kept")
    recipe = kerastk.Finetune(
        data=str(digits), epochs=4, learning_rate=3e-3, keep_last=True,
        runs=str(folder), name="run", seed=1, deterministic=True, **SMALL,
    )  # fmt: skip
    return kerastk.train(recipe, callbacks=[noted], show=False), noted.ends


def test_the_last_model_is_that_of_the_last_epoch_and_the_best_one_stays(kept):
    run, ends = kept
    best, last = (run.metrics[name] for name in ("best", "last"))
    assert last["epoch"] == len(run.log) == 4 > best["epoch"]
    assert last["val_cross_entropy"] == float(run.log[-1]["val_cross_entropy"])
    for path, known in ((run.last_keras, last), (run.model_keras, best)):
        for weight, value in zip(keras.saving.load_model(path).weights, ends[known["epoch"] - 1], strict=True):
            # The head is the calibrated one.
            scale = known["temperature"] if weight.path.startswith("head/") else 1
            np.testing.assert_allclose(weight, value / scale, rtol=1e-6)


def test_the_last_model_answers_from_python_and_the_command_line(kept, digits):
    run, _ = kept
    truth, scores = answers(run, digits)
    assert cross_entropy(np.log(scores), truth) == pytest.approx(run.metrics["last"]["val_cross_entropy"], rel=1e-4)
    # Before temperature scaling: by its own temperature, not by that of the best.
    _, raw = answers(run, digits, calibrated=False)
    ratio = np.log(raw[0, 0] / raw[0, 1]) / np.log(scores[0, 0] / scores[0, 1])
    assert ratio == pytest.approx(run.metrics["last"]["temperature"], rel=1e-2)
    last, photo = kerastk.load(run, last=True), digits / "1" / "0.png"
    assert abs(last(photo).probability - kerastk.load(run)(photo).probability) > 1e-3
    said = CliRunner().invoke(commands, ["predict", str(run.path), str(photo), "--last"], catch_exceptions=False).output
    assert f"{last(photo).label} {last(photo).probability:.3f}" in said


def test_where_it_was_not_kept_it_is_not_there(small_run):
    assert not small_run.last_keras.exists()
    assert "last" not in small_run.metrics
    with pytest.raises(RunError, match="has the best model alone; train with --keep-last"):
        kerastk.load(small_run, last=True)


@pytest.mark.slow
def test_with_averages_it_is_the_average_that_was_judged(digits, tmp_path):
    fields = {**SMALL, "epochs": 2, "learning_rate": 3e-3, "ema": 0.9, "keep_last": True}
    run = kerastk.train(kerastk.Finetune(data=str(digits), runs=str(tmp_path), **fields), show=False)
    truth, scores = answers(run, digits)
    assert run.metrics["last"]["epoch"] == 2
    assert cross_entropy(np.log(scores), truth) == pytest.approx(float(run.log[-1]["val_cross_entropy"]), rel=1e-4)


def test_a_run_that_ends_with_its_probe_has_it_twice(digits, small_run, tmp_path):
    recipe = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), keep_last=True, time="1s", runs=str(tmp_path)
    )
    run = kerastk.train(recipe, show=False)
    assert run.metrics["last"] == run.metrics["best"]
    assert run.metrics["last"]["phase"] == "probe"
    found = [keras.saving.load_model(path).get_weights() for path in (run.model_keras, run.last_keras)]
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))
