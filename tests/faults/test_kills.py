"""kill -9, anywhere: what is gone on with ends as what nothing has hit."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kerastk.training.checkpoint import Checkpoints
from kerastk.training.store import entries
from tests.faults.child import tree
from tests.faults.runs import CHILD, STEPS, broken, checkpoint_before, differences, hidden, log, place

KILLED = -9


def kill_in_turn(case, servers, batches, **job):
    """Kill each process of a run in a batch that it counts; the batches of the one that ends, and those before it."""
    done = 0
    for server, batch in zip(servers, batches, strict=False):
        death = server.run(case.out, **case.job, at=[batch, "send", "SIGKILL"], **job)
        assert death.code == KILLED, death.said
        done = checkpoint_before(done + batch)
        assert place(case.run) == done
        assert broken(case.run) == []
    death = servers[len(batches)].run(case.out, **case.job, **job)
    assert death.code == 0, death.said
    assert f"resumed  after epoch {done // STEPS}" in death.said
    return int((case.out / "here").read_text()), done


# The batch of each process: in the middle of an epoch; at a checkpoint, before it is made; in the second phase.
@pytest.mark.parametrize(
    ("configuration", "batches"),
    [
        ("cache", [12, 7]),
        pytest.param("phases", [5, 16], marks=pytest.mark.slow),
        pytest.param("fresh", [12], marks=pytest.mark.slow),
        pytest.param("kit", [12], marks=pytest.mark.slow),
        pytest.param("off", [12, 7], marks=pytest.mark.slow),
        pytest.param("all", [12, 7], marks=pytest.mark.slow),
        pytest.param("fresh", [2, 8, 3, 9], marks=pytest.mark.slow),
        # In both machines, then when all is trained.
        pytest.param("codes", [5, 7, 10], marks=pytest.mark.slow),
        pytest.param("variational", [12, 7], marks=pytest.mark.slow),
        pytest.param("classes", [12, 7], marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_the_uninterrupted_one(configuration, batches, case, first, second, reference):
    hit, whole = case(configuration), reference(configuration)
    here, done = kill_in_turn(hit, [first, second, first, second, first][: len(batches) + 1], batches, counted=True)
    assert differences(hit.trace(), whole.trace()) == []
    # Nothing that a checkpoint holds is trained again, and a callback of the user's counts on.
    total = 4 * STEPS
    assert here == total - done
    assert (hit.out / "counted").read_text() == str(total)
    assert [int(row["epoch"]) for row in log(hit.run)] == sorted({int(row["epoch"]) for row in log(hit.run)})
    assert not hit.run.checkpoint.exists()


@pytest.mark.parametrize("configuration", ["classes", pytest.param("codes", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_when_all_is_trained_is_judged_as_the_uninterrupted_one(
    configuration, case, first, second, reference
):
    hit = case(configuration)
    assert first.run(hit.out, **hit.job, counted=True, at=["end", "send", "SIGKILL"]).code == KILLED
    goes_on_to_the_same_end(hit, second, reference(configuration))


@pytest.mark.slow
def test_early_stopping_and_the_best_model_are_the_same_across_a_kill(case, first, second, reference):
    hit, whole = case("stops"), reference("stops")
    epochs = [int(row["epoch"]) for row in log(whole.run)]
    best = whole.run.metrics["best"]["epoch"]
    # It did stop, with the best model before its last; the last epoch but one was already without progress.
    assert 0 < best == epochs[-1] - 2 < 10
    here, done = kill_in_turn(hit, [first, second], [(epochs[-1] - 1) * STEPS + 5])
    assert here == epochs[-1] * STEPS - done == 4
    assert log(hit.run) == log(whole.run)
    assert differences(hit.trace(), whole.trace()) == []


@pytest.mark.slow
def test_a_kill_while_the_activations_are_written_changes_nothing(case, first, second, reference):
    hit = case("cache")
    # In the records of the probe's features, which those of validation precede; then in those of an augmented view.
    for server, records in ((first, 24 + 112 // 2), (second, 112 // 2)):
        death = server.run(
            hit.out, **hit.job, watch={"under": hit.env["KERASTK_CACHE"], "name": "index.bin", "call": 5}
        )
        assert death.code == KILLED, death.said
        stores = entries(hit.run.path.parent / "cache" / "activations")
        assert records in [file.stat().st_size / 36 for entry in stores for file in entry.path.glob("index.bin")]
    death = first.run(hit.out, **hit.job)
    assert death.code == 0, death.said
    assert differences(hit.trace(), reference("cache").trace()) == []


def test_a_save_that_is_killed_at_any_write_fsync_rename_or_removal_leaves_whole_checkpoints(tmp_path):
    before = tmp_path / "before"
    for number in (1, 2):
        Checkpoints(before).save(tree(number))

    def save(name, **watch):
        folder = tmp_path / name
        shutil.copytree(before, folder)
        job = {"out": str(tmp_path), "save": str(folder), "watch": {"under": str(folder), **watch}}
        done = subprocess.run([sys.executable, CHILD, json.dumps(job)], capture_output=True, text=True)
        return folder, done

    folder, done = save("dry")
    assert done.returncode == 0, done.stderr
    calls = json.loads((tmp_path / "calls.json").read_text())
    kinds = [kind for kind, _ in calls]
    # Three files, their folder and the one above; the new name; the old checkpoint's files and itself.
    assert [kinds.count(kind) for kind in ("fsync", "rename", "remove")] == [5, 1, 4]
    assert kinds.count("write") >= 3
    renamed = kinds.index("rename")
    assert "write" not in kinds[renamed:]
    for call in range(1, len(calls) + 1):
        folder, done = save(f"killed {call}", call=call)
        assert done.returncode == KILLED, done.stderr
        state, damaged = Checkpoints(folder).load()
        assert damaged == [], calls[call - 1]
        wanted = tree(2 if call <= renamed + 1 else 3)
        assert state["number"] == wanted["number"], calls[call - 1]
        assert all(np.array_equal(*pair) for pair in zip(state["arrays"], wanted["arrays"], strict=True))
        # The next one is made as if nothing had been, and clears up.
        Checkpoints(folder).save(tree(4))
        assert Checkpoints(folder).load()[0]["number"] == 4
        assert len(list(folder.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["cache", "off", "kit", "tag", "codes", "classes"])
@pytest.mark.parametrize("number", range(15))
def test_a_run_killed_at_a_random_moment_ends_as_the_uninterrupted_one(
    configuration, number, tmp_path, case_in, first, second, reference
):
    whole = reference(configuration)
    begun, ended = (path.stat().st_mtime for path in (whole.run.environment_json, whole.run.metrics_json))
    moment = random.Random(f"{configuration} {number}").uniform(0, ended - begun)
    for attempt in range(5):
        hit = case_in(tmp_path / str(attempt), configuration)
        death = kill_after(hit, first, moment)
        if death.code == KILLED:
            break
        # It was quicker than the other one.
        moment *= 0.8
    assert death.code == KILLED, death.said
    assert broken(hit.run) == []
    print(f"killed after {moment:.2f} s; the last checkpoint is after batch {place(hit.run)}")
    goes_on_to_the_same_end(hit, second, whole)


def kill_after(case, server, seconds):
    """Kill a process some seconds after its run has begun."""
    process = server.start(case.out, **case.job, counted=True)
    for _ in range(12_000):
        if case.run.begun:
            break
        time.sleep(0.005)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return server.end()


def goes_on_to_the_same_end(hit, server, whole):
    death = server.run(hit.out, **hit.job, counted=True)
    assert death.code == 0, death.said
    assert differences(hit.trace(), whole.trace()) == []


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["cache", "off", "kit", "tag", "codes", "classes"])
@pytest.mark.parametrize("number", range(5))
def test_a_run_killed_at_a_random_call_of_a_save_ends_as_the_uninterrupted_one(
    configuration, number, case, first, second, reference, saving
):
    hit = case(configuration)
    call = random.Random(f"{configuration} save {number}").randint(1, saving(configuration))
    watch = {"under": str(hit.run.checkpoint) + "/", "call": call}
    death = first.run(hit.out, **hit.job, counted=True, watch=watch)
    assert death.code == KILLED, death.said
    assert broken(hit.run) == []
    goes_on_to_the_same_end(hit, second, reference(configuration))


@pytest.fixture(scope="module")
def saving(case_in, first, tmp_path_factory):
    """A function that counts the writes, fsyncs, renames and removals of all saves of a configuration."""
    counted = {}

    def count(configuration):
        if configuration not in counted:
            case = case_in(tmp_path_factory.mktemp("counted"), configuration)
            death = first.run(case.out, **case.job, watch={"under": str(case.run.checkpoint) + "/"})
            assert death.code == 0, death.said
            counted[configuration] = len(json.loads((case.out / "calls.json").read_text()))
        return counted[configuration]

    return count


@pytest.mark.slow
def test_a_run_whose_processes_die_one_after_another_each_a_little_later_ends_as_the_uninterrupted_one(
    case, first, second, reference
):
    hit = case("cache")
    for call in range(1, 4000, 12):
        server = (first, second)[call % 2]
        death = server.run(hit.out, **hit.job, counted=True, watch={"under": str(hit.run.path), "call": call})
        if death.code == 0:
            break
        assert death.code == KILLED, death.said
        assert broken(hit.run) == []
    assert call > 240
    print(f"{call // 12} kills")
    assert differences(hit.trace(), reference("cache").trace()) == []
    assert hidden(hit.run.path) == []
