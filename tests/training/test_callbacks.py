"""When a phase ends before its last epoch: without progress, or without time."""

import time

import keras
import numpy as np
import pytest

import kerastk
from kerastk.training.callbacks import Averaged, Best, ClassValidation, Deadline, EpochRows, Guard, Last, Plateau
from kerastk.training.phases import Phase, inner_optimizers, optimizer
from tests.conftest import SMALL

MONITOR = ClassValidation.monitor


def stopped_after(values, **options):
    """The epoch after which `Best` stops a phase whose epochs have these values; None where it does not."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, name="head")])
    best = Best(model, ClassValidation(), **options)
    best.set_model(model)
    model.stop_training = False
    best.on_train_begin()
    for epoch, value in enumerate(values):
        best.on_epoch_end(epoch, {MONITOR: value})
        if model.stop_training:
            return epoch + 1, best.epoch
    return None, best.epoch


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3, 2, 2, 2, 2], {"patience": 2}, (4, 2)),
        ([3, 2, 2.5, 1.9, 2, 2], {"patience": 2}, (6, 4)),
        # A small progress is kept, but does not count.
        ([3, 2, 1.95, 1.9, 1.8], {"patience": 2, "min_delta": 0.15}, (4, 4)),
        ([3, 2, 1.95, 1.8, 1.7, 1.6], {"patience": 2, "min_delta": 0.15}, (None, 6)),
        # Epochs before the patience counts.
        ([1, 2, 3, 4, 5, 6], {"patience": 2, "start_from_epoch": 3}, (5, 1)),
        ([4, 3, 2, 1, 5, 6], {"patience": 2, "start_from_epoch": 3}, (6, 4)),
        ([float("nan")] * 4, {"patience": 2}, (2, None)),
    ],
)
def test_a_phase_without_progress_ends(values, options, expected):
    assert stopped_after(values, **options) == expected


def test_the_patience_begins_anew_with_each_phase_but_the_best_stays():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, name="head")])
    best = Best(model, ClassValidation(), 2, start_from_epoch=1)
    best.set_model(model)
    for epochs in (range(3), range(3, 6)):
        model.stop_training = False
        best.on_train_begin()
        for epoch in epochs:
            best.on_epoch_end(epoch, {MONITOR: 1.0 + epoch})
        assert model.stop_training
    assert best.epoch == 1


def rates(values, *, factor=0.5, patience=2, warmup=0, steps=4):
    """The learning rate at each batch of epochs whose figures are `values`, from 0.8."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.8), loss="mse")
    plateau, seen = Plateau(factor, patience), []
    plateau.warmup_steps = warmup
    plateau.set_model(model)
    plateau.on_train_begin()
    for epoch, value in enumerate(values):
        for batch in range(steps):
            plateau.on_train_batch_begin(batch)
            seen.append(float(model.optimizer.learning_rate))
            plateau.on_train_batch_end(batch)
        plateau.on_epoch_end(epoch, {MONITOR: value})
    return np.array(seen)


def test_a_plateau_lowers_the_learning_rate_each_time_it_lasts():
    found = rates([3, 2, 2, 2.5, 2, 2, 1, 1], patience=2).reshape(8, 4)
    assert (found == found[:, :1]).all()
    np.testing.assert_allclose(found[:, 0], [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2], rtol=1e-6)


def test_before_a_plateau_comes_a_linear_warm_up():
    np.testing.assert_allclose(rates([1, 1], warmup=6), [0.8 * min(1, step / 6) for step in range(8)], rtol=1e-6)


def test_a_plateau_lowers_each_of_several_optimizers():
    kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
    by_path = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.8))
    by_path[kernel.path] = keras.optimizers.SGD(0.2)
    several = keras.optimizers.LossScaleOptimizer(keras.optimizers.MultiOptimizer(by_path))
    several.build([kernel, bias])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.optimizer = several
    plateau = Plateau(0.5, 1)
    plateau.set_model(model)
    plateau.on_train_begin()
    for value in (1.0, 1.0):
        plateau.on_epoch_end(0, {MONITOR: value})
    assert sorted(float(each.learning_rate) for each in inner_optimizers(several)) == pytest.approx([0.1, 0.4])


def test_the_averages_are_judged_and_the_weights_trained_on():
    kernel = keras.Variable([1.0, 2.0], name="kernel")
    made = optimizer(
        Phase(name="x", epochs=9, unfreeze="all", learning_rate=0.5, warmup_epochs=0, schedule="constant"), 1,
        name="sgd", momentum=0.0, clipnorm=0.0, precision="float16", ema=0.75,
    )  # fmt: skip
    made.build([kernel])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.optimizer, average, own = made, None, np.array([1.0, 2.0])
    averaged = Averaged()
    averaged.set_model(model)
    scale = float(made.dynamic_scale)
    for gradient in ([1.0, 0.0], [0.0, -2.0], [4.0, 4.0]):
        made.apply([keras.ops.array(gradient) * scale], [kernel])
        own = own - 0.5 * np.array(gradient)
        average = own if average is None else 0.75 * average + 0.25 * own
        averaged.on_epoch_end(0)
        np.testing.assert_allclose(np.array(kernel), average, rtol=1e-6)
        averaged.back.on_epoch_end(0, {})
        np.testing.assert_allclose(np.array(kernel), own, rtol=1e-6)
    # Keras would overwrite the weights here; what is left of the phase may be another fit.
    made.finalize_variable_values([kernel])
    np.testing.assert_allclose(np.array(kernel), own, rtol=1e-6)


class Slow(keras.callbacks.Callback):
    """Each batch takes half a second."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.5)


def test_a_run_with_a_time_limit_ends_in_time_tested_and_says_so(digits, tmp_path, capsys):
    recipe = kerastk.Finetune(data=str(digits), runs=str(tmp_path), time="8s", epochs=1000, **SMALL)
    run = kerastk.train(recipe, callbacks=[Slow()])
    said = capsys.readouterr().out
    assert "the training ended before its time: --time is up" in said
    assert run.metrics["ended"] == "--time is up"
    assert len(run.predictions_csv.read_text().splitlines()) == 1 + 24
    rows = run.log
    # It was stopped within an epoch, and what was trained till then was judged.
    assert 1 <= len(rows) < 1000
    assert run.complete
    assert np.isfinite(float(rows[-1][MONITOR]))


def test_a_deadline_counts_the_time_before_a_resume():
    rows = EpochRows([])
    deadline = Deadline(100, rows, ClassValidation())
    deadline.reserve = 10
    assert not deadline.near
    rows.set_state(rows.get_state() | {"spent": 89.0})
    assert not deadline.near
    rows.set_state(rows.get_state() | {"spent": 90.0})
    assert deadline.near


def test_what_a_checkpoint_keeps_has_the_names_that_checkpoints_of_earlier_runs_have():
    validation = ClassValidation()
    made = Best(None, validation, 1), Last(None, validation), Guard(), Plateau(0.5, 1), Deadline(1.0, None, validation)
    assert {type(each).__name__: list(each.get_state()) for each in made} == {
        "Best": ["value", "epoch", "temperature", "_weights", "_phase_value", "_phase_epochs", "_waited"],
        "Last": ["epoch", "temperature", "_weights"],
        "Guard": ["rollbacks"],
        "Plateau": ["_scale", "_lowest", "_waited", "_step"],
        "Deadline": ["up"],
    }
