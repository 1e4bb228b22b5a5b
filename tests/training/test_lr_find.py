"""The learning-rate range test."""

import csv
import io

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kerastk
from kerastk.cli import commands
from kerastk.errors import KerastkError
from kerastk.training.lr_find import HIGHEST, LOWEST, STEPS, range_test, suggest

RATES = LOWEST * (HIGHEST / LOWEST) ** (np.arange(STEPS) / (STEPS - 1))


def test_the_suggestion_is_where_the_loss_falls_steepest():
    # A smooth step down around 1e-3, and an explosion at 1.
    log = np.log10(RATES)
    losses = 2 - 1 / (1 + np.exp(-6 * (log + 3))) + np.where(log > 0, (10 ** np.maximum(log, 0) - 1) * 5, 0)
    noisy = losses + np.random.default_rng(0).normal(size=STEPS) * 0.01
    found = suggest(RATES, noisy)
    # The smoothed curve lags behind by some steps of the 12 or so to a power of ten.
    assert 5e-4 < found.suggestion < 1e-2
    assert found.smoothed[0] == pytest.approx(noisy[0])


def test_a_loss_that_falls_nowhere_has_no_suggestion():
    with pytest.raises(KerastkError, match="the loss falls at no learning rate from 1e-07 to 10; set --learning-rate"):
        suggest(RATES, np.linspace(1, 2, STEPS))


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def test_a_range_test_leaves_no_trace_in_the_model_and_sees_the_explosion(model):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(64, 4)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[(inputs @ random.normal(size=(4, 3))).argmax(axis=1)]
    before = {variable.path: np.array(variable) for variable in model.variables}

    def batches(steps):
        while True:
            yield inputs, labels

    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    found = range_test(model, batches, lambda curve: keras.optimizers.SGD(curve(1.0)), loss)
    for variable in model.variables:
        if variable.path in before:
            np.testing.assert_array_equal(np.array(variable), before[variable.path])
    np.testing.assert_allclose(found.rates, RATES[: len(found.rates)])
    # Each loss is that of its own batch, the first that of the weights as they are.
    logits = model(inputs, training=True)
    assert found.losses[0] == pytest.approx(float(loss(labels, logits)), abs=0.5)
    assert 1e-2 < found.suggestion <= 10
    assert found.smoothed.min() < 0.8 * found.smoothed[0]


def test_batches_that_are_much_harder_than_others_do_not_hide_the_descent(model):
    inputs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[inputs[:, :3].argmax(axis=1)]

    def batches(steps):
        random = np.random.default_rng(1)
        while True:
            share = np.float32(random.beta(0.4, 0.4))
            yield inputs, share * labels + (1 - share) / 3

    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    found = range_test(model, batches, lambda curve: keras.optimizers.SGD(curve(1.0)), loss)
    # At the lowest rates nothing has changed yet, whatever the batch.
    assert np.ptp(found.losses[:10]) < 1e-3
    assert 1e-2 < found.suggestion <= 10


def test_lr_find_writes_picture_and_curve_and_no_run(digits, small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "cache"))
    options = ["--weights", small_run.path, "--out", tmp_path / "found.png", "--batch-size", 16]
    result = CliRunner().invoke(commands, list(map(str, ["lr-find", digits, *options])), catch_exceptions=False)
    assert result.exit_code == 0
    rate = float(result.output.split("--learning-rate ")[1].split()[0])
    assert LOWEST <= rate <= HIGHEST
    rows = list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text())))
    assert list(rows[0]) == ["learning_rate", "loss", "smoothed"]
    assert 10 < len(rows) <= STEPS
    assert Image.open(tmp_path / "found.png").width > 500
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "found.csv", "found.png"]


@pytest.mark.slow
def test_a_run_with_an_automatic_learning_rate_records_what_it_found(digits, small_run, tmp_path, capsys):
    recipe = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), learning_rate="auto", epochs=1, batch_size=16,
        runs=str(tmp_path), cache="off",
    )  # fmt: skip
    run = kerastk.train(recipe)
    assert "by a range test of" in capsys.readouterr().out
    rate = run.recipe.learning_rate
    assert LOWEST <= rate <= HIGHEST
    # The log shows the peak of the schedule.
    assert float(run.log[-1]["learning_rate"]) <= rate * 1.0001
    fixed = kerastk.find_learning_rate(recipe, show=False)
    assert fixed.suggestion == pytest.approx(rate, rel=0.5)
