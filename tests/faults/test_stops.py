"""SIGTERM and Ctrl-C, and figures that are no numbers: what ends a run before its time."""

import csv
import io
import json
import re
import shlex

import numpy as np
import pytest

from tests.faults.runs import STEPS, differences, events, hidden, log, place, weights

GOES_ON = r"`kerastk resume (.+)` goes on"


def arguments(case):
    """The recipe as arguments of the command line."""
    fields = {key: value for key, value in case.recipe.items() if key not in ("data", "deterministic")}
    options = [text for key, value in fields.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    return ["finetune", case.recipe["data"], "--deterministic", *options]


def no_result_yet(run):
    return not run.complete and not run.model_keras.exists() and not run.predictions_csv.exists()


def goes_on_to_the_same_end(case, server, whole, *, batches):
    death = server.run(case.out, **case.job)
    assert death.code == 0, death.said
    if batches:
        assert (case.out / "here").read_text() == str(batches)
    else:
        assert not (case.out / "here").exists()
    assert differences(case.trace(), whole.trace()) == []


def test_sigterm_in_mid_epoch_ends_the_batch_and_the_printed_command_goes_on(case, first, second, reference):
    hit = case("cache")
    death = first.run(hit.out, cli=arguments(hit), env=hit.env, at=[12, "send", "SIGTERM"])
    assert death.code == 75, death.said
    assert death.line.startswith("kerastk: stopped by SIGTERM; ")
    assert "Traceback" not in death.said
    # Not at a mark, but where it was.
    assert place(hit.run) == 12
    assert no_result_yet(hit.run)
    command = shlex.split(re.search("`(.+)`", death.line)[1])
    assert command == ["kerastk", "resume", str(hit.run.path)]
    death = second.run(hit.out, cli=command[1:], env=hit.env)
    assert death.code == 0, death.said
    assert (hit.out / "here").read_text() == str(4 * STEPS - 12)
    assert differences(hit.trace(), reference("cache").trace()) == []
    # Done is done.
    before = hit.run.model_keras.read_bytes(), hit.run.metrics_json.read_bytes()
    death = second.run(hit.out, cli=command[1:], env=hit.env)
    assert death.code == 0, death.said
    assert "is complete" in death.said
    assert before == (hit.run.model_keras.read_bytes(), hit.run.metrics_json.read_bytes())
    assert not hit.run.checkpoint.exists()


@pytest.mark.slow
def test_sigterm_twice_is_sigterm(case, first, second, reference):
    hit = case("cache")
    death = first.run(hit.out, **hit.job, at=[17, "send", "SIGTERM", "SIGTERM"])
    assert death.code == 75, death.said
    assert re.search(GOES_ON, death.line)
    assert place(hit.run) == 17
    goes_on_to_the_same_end(hit, second, reference("cache"), batches=11)


# The first save is the probe's: there is nothing to wait for. The fifth is made after two epochs.
@pytest.mark.parametrize(
    ("name", "call", "done"),
    [
        pytest.param("*/arrays.npz", 1, 0, marks=pytest.mark.slow),
        pytest.param("*/sha256.json", 9, 14, marks=pytest.mark.slow),
    ],
)
def test_sigterm_during_a_save_leaves_nothing_half_written(name, call, done, case, first, second, reference):
    hit = case("cache")
    watch = {"under": str(hit.run.path), "name": name, "call": call, "send": "SIGTERM"}
    death = first.run(hit.out, **hit.job, watch=watch)
    assert death.code == 75, death.said
    assert re.search(GOES_ON, death.line)
    assert place(hit.run) == done
    assert hidden(hit.run.path) == []
    goes_on_to_the_same_end(hit, second, reference("cache"), batches=4 * STEPS - done)


@pytest.mark.slow
def test_sigterm_after_the_last_batch_leaves_only_the_measuring_to_be_done(case, first, second, reference):
    hit = case("cache")
    death = first.run(hit.out, **hit.job, at=["end", "send", "SIGTERM"])
    assert death.code == 75, death.said
    assert place(hit.run) == 4 * STEPS
    assert no_result_yet(hit.run)
    goes_on_to_the_same_end(hit, second, reference("cache"), batches=0)


@pytest.mark.slow
def test_ctrl_c_ends_the_run_with_the_best_model_so_far(case, first, second, reference):
    hit, whole = case("best"), reference("best")
    best = whole.run.metrics["best"]
    assert 0 < best["epoch"] < 4
    batch = best["epoch"] * STEPS + 2
    death = first.run(hit.out, cli=arguments(hit), env=hit.env, at=[batch, "send", "SIGINT"])
    assert death.code == 0, death.said
    assert "ending after this batch with the best model so far" in death.said
    assert "the training ended before its time: by Ctrl-C" in death.said
    metrics = hit.run.metrics
    assert metrics["ended"] == "by Ctrl-C"
    assert metrics["best"] == best
    assert differences({"model": weights(hit.run.model_keras)}, {"model": weights(whole.run.model_keras)}) == []
    assert hit.run.predictions_csv.read_text() == whole.run.predictions_csv.read_text()
    assert log(hit.run) == log(whole.run)[: best["epoch"]]
    death = second.run(hit.out, cli=["resume", str(hit.run.path)], env=hit.env)
    assert death.code == 0, death.said
    assert "is complete" in death.said


@pytest.mark.slow
def test_ctrl_c_twice_leaves_at_once_and_resumes(case, first, second, reference):
    hit = case("cache")
    death = first.run(hit.out, cli=arguments(hit), env=hit.env, at=[12, "send", "SIGINT", "SIGINT"])
    assert death.code == 130, death.said
    assert death.line == "kerastk: stopped"
    assert no_result_yet(hit.run)
    assert place(hit.run) == 10
    goes_on_to_the_same_end(hit, second, reference("cache"), batches=18)


# In the middle of an epoch; before a checkpoint in it, whose loss is still a number; in an epoch's last batch.
@pytest.mark.slow
@pytest.mark.parametrize("batch", [STEPS * 3 + 1, STEPS * 3 + 3, STEPS * 4])
def test_a_weight_that_is_no_number_stops_the_run_with_the_best_model_before_it(batch, case, first, second, reference):
    hit, whole = case("best"), reference("best")
    best = whole.run.metrics["best"]
    assert 0 < best["epoch"] < 4
    death = first.run(hit.out, **hit.job, at=[batch, "nan"])
    assert death.code == 2, death.said
    assert death.line.startswith("Diverged: ")
    assert "no longer a number" in death.line
    assert f"The best model before that is in {hit.run.path}" in death.line
    assert "Traceback" not in death.said
    found = weights(hit.run.model_keras)
    assert differences({"model": found}, {"model": weights(whole.run.model_keras)}) == []
    assert all(np.isfinite(each).all() for each in found.values() if each.dtype.kind == "f")
    metrics = json.loads(hit.run.metrics_json.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert metrics["best"] == best
    assert "no longer a number" in metrics["ended"]
    assert log(hit.run) == log(whole.run)[:3]
    rows = list(csv.DictReader(io.StringIO(hit.run.log_csv.read_text())))
    assert all(np.isfinite(float(value)) for row in rows for key, value in row.items() if key != "phase")
    for split in ("train", "validation"):
        figures = scalars(hit.run, split)
        assert figures
        assert all(np.isfinite(value) for value in figures)
    assert not hit.run.checkpoint.exists()
    assert hidden(hit.run.path) == []


@pytest.mark.slow
def test_a_weight_that_is_no_number_is_gone_back_from_at_half_the_learning_rate(case, first, second, reference):
    hit, whole = case("best", on_nan="rollback"), reference("best")
    batch = STEPS * 2 + 5
    death = first.run(hit.out, **hit.job, at=[batch, "nan"])
    assert death.code == 0, death.said
    said = " ".join(death.said.split())
    assert "the loss is no longer a number at epoch 3, batch 6" in said
    assert "going back to epoch 2 at half the learning rate" in said
    assert "ended" not in hit.run.metrics
    # Up to the checkpoint all is as without it; behind it every epoch is there once, at half the rate.
    rows, before = log(hit.run), log(whole.run)
    assert rows[:2] == before[:2]
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in before]
    for row, other in zip(rows[3:], before[3:], strict=True):
        assert float(row["learning_rate"]) == pytest.approx(float(other["learning_rate"]) / 2, rel=1e-3)
    for split in ("train", "validation"):
        assert all(np.isfinite(value) for value in scalars(hit.run, split))
    steps = [step for step, _ in events(hit.run, "validation")["cross_entropy"]]
    assert steps == [STEPS * epoch for epoch in (1, 2, 3, 4)]
    assert hidden(hit.run.path) == []


@pytest.mark.slow
def test_what_has_gone_back_is_killed_and_ends_as_if_it_had_not_been(case_in, tmp_path, first, second):
    whole, hit = (case_in(tmp_path / name, "best", on_nan="rollback") for name in ("whole", "hit"))
    job = {"at": [STEPS * 2 + 5, "nan"], "counted": True}
    assert first.run(whole.out, **whole.job, **job).code == 0
    watch = {"under": str(hit.run.checkpoint) + "/", "name": "*/sha256.json", "call": 18, "send": "SIGKILL"}
    assert first.run(hit.out, **hit.job, **job, watch=watch).code == -9
    death = second.run(hit.out, **hit.job, counted=True)
    assert death.code == 0, death.said
    assert differences(hit.trace(), whole.trace()) == []


@pytest.mark.slow
def test_a_run_goes_back_three_times_at_most(case, first):
    hit = case("best", on_nan="rollback", learning_rate=10.0, clipnorm=0.0, warmup_epochs=0.0, optimizer="sgd", l2=10.0)
    death = first.run(hit.out, **hit.job)
    assert death.code == 2, death.said
    assert " ".join(death.said.split()).count("at half the learning rate") == 3
    assert death.line.startswith("Diverged: ")


def scalars(run, split):
    import tensorflow
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    files = (run.events / split).glob("*.tfevents.*")
    events = [event for file in files for event in EventFileLoader(str(file)).Load()]
    found = [tensorflow.make_ndarray(value.tensor) for event in events for value in event.summary.value]
    return [float(value) for value in found if value.dtype.kind == "f" and value.ndim == 0]


@pytest.mark.slow
def test_a_run_without_a_number_from_the_start_leaves_no_model_and_one_line(case, first):
    hit = case("off", probe="none")
    death = first.run(hit.out, **hit.job, at=[2, "nan"])
    assert death.code == 2, death.said
    assert death.line.startswith("Diverged: the loss is no longer a number at epoch 1, batch 3, learning rate ")
    assert no_result_yet(hit.run)
    assert hidden(hit.run.path) == []
