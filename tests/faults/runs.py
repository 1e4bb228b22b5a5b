"""Runs for the tests of faults: the processes that carry them out, and what is compared of them."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.graph_pb2 import GraphDef

from kerastk.run import Run
from kerastk.training.checkpoint import Checkpoints

CHILD = Path(__file__).parent / "child.py"
# 112 photos in batches of 16; two checkpoints an epoch.
STEPS, MARK = 7, 3
EPOCHS = 4
# Longer than any of them takes; then it hangs.
LIMIT_SECONDS = 300
TIMINGS = ("seconds", "photos_per_second", "words_per_second", "wait_share", "final/seconds")


@dataclass(frozen=True)
class Death:
    """How a process ended: its exit code (negative for a signal), and what it had printed."""

    code: int
    said: str

    @property
    def line(self):
        """The last line that it printed."""
        return self.said.rstrip("\n").rpartition("\n")[2]


class Server:
    """A `child.py --serve`; its hash seed is the order of its sets."""

    def __init__(self, hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            [sys.executable, CHILD, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=CHILD.parents[2],
        )  # fmt: skip
        self._ready = False
        self._number = None

    def start(self, out, **job):
        """Start a process; its number. `end` must follow."""
        if not self._ready:
            assert self._process.stdout.readline() == "ready\n"
            self._ready = True
        if self._number is not None:
            # A test failed before its end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._number, signal.SIGKILL)
            self.end()
        self._out = out
        self._process.stdin.write(json.dumps({"out": str(out), **job}) + "\n")
        self._process.stdin.flush()
        self._number = int(self._process.stdout.readline())
        return self._number

    def end(self):
        """Wait for its end."""
        late = threading.Timer(LIMIT_SECONDS, os.kill, (self._number, signal.SIGKILL))
        late.start()
        line, self._number = self._process.stdout.readline(), None
        in_time = late.is_alive()
        late.cancel()
        assert in_time, "it hung"
        code = int(line)
        return Death(code, (self._out / "said").read_text())

    def run(self, out, **job):
        """Start a process and wait for its end."""
        self.start(out, **job)
        return self.end()

    def close(self):
        """Let it end, and its process, if a test has left one."""
        self._process.kill()
        self._process.communicate()


def checkpoint_before(batch):
    """The last checkpoint of a run that is killed in its batch of this number, before what follows the batch."""
    done = batch - 1
    epoch, step = divmod(done, STEPS)
    return epoch * STEPS + (MARK if step >= MARK else 0)


def place(run):
    """The batches after which the newest checkpoint of a run was made, which is whole; 0 where there is none."""
    state, damaged = Checkpoints(run.checkpoint).load()
    assert damaged == []
    return 0 if state is None else state["epoch"] * STEPS + state["step"]


def hidden(folder):
    """Files and folders with a dot in front: what a writer has left behind."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def trace(run, out):
    """All of a complete run that another one has in common with it, by name."""
    optimizer = np.load(out / "optimizer.npz")
    metrics = {key: value for key, value in run.metrics.items() if key != "seconds"}
    found = {
        "weights": weights(run.model_keras),
        "last weights": weights(run.last_keras) if run.last_keras.exists() else None,
        "optimizer": {name: optimizer[name] for name in optimizer.files},
        "metrics": json.dumps(metrics, sort_keys=True),
        "predictions": [path.read_text() for path in (run.predictions_csv, run.predictions_conll) if path.exists()],
        "log": log(run),
        "labels": [path.read_text() for path in (run.labels_json, run.vocabulary_json) if path.exists()],
    }
    for split in ("train", "validation"):
        found[f"events of {split}"] = events(run, split)
    return found


def weights(path):
    """The arrays of a saved model by name."""
    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, each: found.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None)
    return found


def log(run):
    """The rows of log.csv without what was measured with a clock; an epoch more each."""
    rows = list(csv.DictReader(io.StringIO(run.log_csv.read_text())))
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def events(run, split):
    """(step, value) of each tag in the order in which TensorBoard reads them; no step comes twice, none goes back."""
    found = defaultdict(list)
    for file in sorted((run.events / split).glob("*.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                steps = [step for step, _ in found[value.tag]]
                assert not steps or event.step > steps[-1], f"{value.tag}: step {event.step} after {steps[-1]}"
                # In the recipe are the folders' names.
                known = not value.tag.startswith("_hparams_") and value.tag not in ("recipe", *TIMINGS)
                found[value.tag].append((event.step, _content(value) if known else None))
    return dict(found)


def _content(value):
    """The bytes of an event's value; of a graph, whose attributes stand in any order, those of its nodes in order."""
    if value.tag == "__run_graph__":
        graph = GraphDef.FromString(value.tensor.string_val[0])
        return graph.SerializeToString(deterministic=True)
    return value.tensor.SerializeToString()


def differences(found, wanted):
    """The names of what is not equal, bit for bit."""
    assert found.keys() == wanted.keys()
    return [name for name in wanted if not _equal(found[name], wanted[name])]


def _equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return one == other


def broken(run):
    """The files of a run folder, under their own names, that are not whole."""
    found = []
    for path in sorted(run.path.glob("*.*")):
        try:
            if path.name.startswith("."):
                continue
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".toml":
                assert Run(run.path).recipe
            elif path.suffix == ".csv":
                rows = [row for row in csv.reader(io.StringIO(path.read_text())) if row]
                assert len({len(row) for row in rows}) <= 1
            elif path.suffix == ".keras":
                with zipfile.ZipFile(path) as archive:
                    assert archive.testzip() is None
        except (ValueError, AssertionError, zipfile.BadZipFile):
            found.append(path.name)
    if run.checkpoint.is_dir():
        found += Checkpoints(run.checkpoint).load()[1]
    return found
