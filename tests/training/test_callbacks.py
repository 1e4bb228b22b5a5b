"""When a phase ends before its last epoch: without progress, or without time."""

import time

import keras
import numpy as np
import pytest

import kerastk
from kerastk.training.callbacks import MONITOR, Best, Deadline, EpochRows, Validation
from tests.conftest import SMALL


def stopped_after(values, **options):
    """The epoch after which `Best` stops a phase whose epochs have these values; None where it does not."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, name="head")])
    best = Best(model, Validation(), **options)
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
    best = Best(model, Validation(), 2, start_from_epoch=1)
    best.set_model(model)
    for epochs in (range(3), range(3, 6)):
        model.stop_training = False
        best.on_train_begin()
        for epoch in epochs:
            best.on_epoch_end(epoch, {MONITOR: 1.0 + epoch})
        assert model.stop_training
    assert best.epoch == 1


class Slow(keras.callbacks.Callback):
    """Each batch takes half a second."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.5)


def test_a_run_with_a_time_limit_ends_in_time_tested_and_says_so(digits, tmp_path, capsys):
    recipe = kerastk.Finetune(data=str(digits), runs=str(tmp_path), time="20s", epochs=1000, **SMALL)
    run = kerastk.train(recipe, callbacks=[Slow()])
    assert run.metrics["seconds"]["training"] < 20
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
    deadline = Deadline(100, rows, Validation())
    deadline.reserve = 10
    assert not deadline.near
    rows.set_state({"rows": [], "spent": 89.0})
    assert not deadline.near
    rows.set_state({"rows": [], "spent": 90.0})
    assert deadline.near
