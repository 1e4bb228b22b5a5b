"""The process that dies: a line of JSON says what it trains, and what hits it where.

`python child.py JSON` is one such process. `python child.py --serve` imports everything once and answers each line of
its standard input with a process of its own, forked before TensorFlow computes anything: with its number, and when
it is gone with its exit code. What it printed is then in the file `said` of its folder `out`.

    out       a folder for what it notes
    recipe    train with these fields, with `resume=True`
    resume    or go on with this run, with the arguments `options`
    cli       or do what these arguments of `kerastk` say
    save      or make the next checkpoint in this folder
    at        [batch of this process, or "end", fault, arguments ...]: one of FAULTS
    watch     the arguments of `Watch`
    counted   whether a callback with a state counts the run's batches
    limit     the largest file that it can write, in bytes
    env       variables of its environment
    unprivileged    whether root gives up writing where nobody else may
"""

import builtins
import ctypes
import errno
import functools
import importlib
import io
import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path


class Watch:
    """Counts the writes, fsyncs, renames and removals of files below a folder; does something in number `call` of them.

    It sends a signal or raises an OSError, by name. A write is half done then, the others have not begun. `name` is a
    part of the path, in which random names are *. Without a `call` it only counts; the file `calls.json` in `out` lists
    them in the end.
    """

    def __init__(self, out, under, *, name="", call=0, send="SIGKILL"):
        self.calls = []
        self._out, self._under, self._name, self._call, self._send = out, under, name, call, send

    def __enter__(self):
        self._before = [(module, name, getattr(module, name)) for module, name in _WATCHED]
        os.fsync = self._hooked("fsync", os.fsync, lambda file: os.readlink(f"/proc/self/fd/{file}"))
        os.rename = self._hooked("rename", os.rename, lambda old, new: new)
        os.replace = self._hooked("rename", os.replace, lambda old, new: new)
        os.unlink = self._hooked("remove", os.unlink, _located)
        os.rmdir = self._hooked("remove", os.rmdir, _located)
        builtins.open = io.open = self._opened
        return self

    def __exit__(self, *error):
        for module, name, function in self._before:
            setattr(module, name, function)
        (self._out / "calls.json").write_text(json.dumps(self.calls))

    def hit(self, kind, path):
        """Whether this call is the one."""
        path = os.fsdecode(path)
        if not path.startswith(self._under):
            return False
        shown = re.sub(r"\.[0-9a-f]{16}", "*", path.removeprefix(self._under))
        if self._name not in shown:
            return False
        self.calls.append([kind, shown])
        return len(self.calls) == self._call

    def send(self):
        """Hit the process."""
        if self._send.startswith("E"):
            number = getattr(errno, self._send)
            raise OSError(number, os.strerror(number))
        os.kill(os.getpid(), signal.Signals[self._send])

    def _hooked(self, kind, function, path_of):
        @functools.wraps(function)
        def hooked(*arguments, **options):
            if self.hit(kind, path_of(*arguments, **options)):
                self.send()
            return function(*arguments, **options)

        return hooked

    def _opened(
        self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
    ):
        if isinstance(file, int) or not set(mode) & set("wax+") or not os.fsdecode(file).startswith(self._under):
            return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _Raw(os.fsdecode(file), mode.replace("t", "").replace("b", ""), opener=opener)
        raw.watch = self
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    """A file whose writes are watched."""

    def write(self, data):
        if self.watch.hit("write", self.name):
            content = memoryview(data).cast("B")
            done = super().write(content[: len(content) // 2])
            self.watch.send()
            return done
        return super().write(data)


_OPEN = open
_WATCHED = [(os, name) for name in ("fsync", "rename", "replace", "unlink", "rmdir")]
_WATCHED += [(builtins, "open"), (io, "open")]


def _located(path, *, dir_fd=None):
    return path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)


def send(callback, *names):
    """Signals to itself."""
    for name in names:
        os.kill(os.getpid(), signal.Signals[name])


def nan(callback):
    """A weight that is no number."""
    import numpy as np

    variable = callback.model.trainable_variables[0]
    value = np.array(variable)
    value.flat[0] = np.nan
    variable.assign(value)


def remove(callback, path):
    """A photo that goes away; it lies in `out` then."""
    os.replace(path, callback.out / "removed")


def overwrite(callback, path, other):
    """A photo that becomes another."""
    Path(path).write_bytes(Path(other).read_bytes())


def limit(callback, size):
    """A disk that takes no file larger than that."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def fill(callback, folder):
    """A disk without a free byte."""
    with open(Path(folder) / "filler", "wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def wait(callback):
    """A process that is busy until it is killed."""
    (callback.out / "waiting").touch()
    time.sleep(600)


FAULTS = {each.__name__: each for each in (send, nan, remove, overwrite, limit, fill, wait)}


def callbacks(out, *, at=(), counted=False):
    """A callback that notes and does what `at` says and, if wanted, one with a state, as a user may write it.

    In `out` it notes after each epoch the optimizer's variables (`optimizer.npz`), the batches that this process has
    trained (`here`), and the other one those of the run (`counted`).
    """
    import keras
    import numpy as np

    def note(name, write):
        with open(out / f"{name}.new", "wb") as file:
            write(file)
        os.replace(out / f"{name}.new", out / name)

    class Witness(keras.callbacks.Callback):
        here = 0

        def on_train_batch_end(self, batch, logs=None):
            self.here += 1
            self.fault(self.here)

        def on_epoch_end(self, epoch, logs=None):
            values = [np.array(variable) for variable in self.model.optimizer.variables]
            note("optimizer.npz", lambda file: np.savez(file, *values))
            note("here", lambda file: file.write(str(self.here).encode()))

        def on_train_end(self, logs=None):
            self.fault("end")

        def fault(self, place):
            if at and at[0] == place:
                FAULTS[at[1]](self, *at[2:])

    class Counter(keras.callbacks.Callback):
        batches = np.zeros((), np.int64)

        def on_train_batch_end(self, batch, logs=None):
            self.batches = self.batches + 1

        def on_epoch_end(self, epoch, logs=None):
            note("counted", lambda file: file.write(str(self.batches).encode()))

        def get_state(self):
            return {"array": self.batches, "array of": {"array": [self.batches, None, "text"]}}

        def set_state(self, state):
            self.batches = state["array"]

    Witness.out = out
    return [Witness(), Counter()] if counted else [Witness()]


def tree(number):
    """The state of a checkpoint by its number."""
    import numpy as np

    return {"number": number, "arrays": [np.full(30_000, number, np.float32), np.arange(5)], "inner": {"text": "é\n"}}


def work(job):
    """Be the process; the exit code."""
    out = Path(job["out"])
    out.mkdir(exist_ok=True)
    for name in ("here", "counted", "waiting", "calls.json"):
        (out / name).unlink(missing_ok=True)
    os.environ.update(job.get("env", {}))
    if job.get("unprivileged"):
        _give_up()
    if "limit" in job:
        limit(None, job["limit"])
    if "watch" not in job:
        return _do(job, out)
    with Watch(out, **job["watch"]):
        return _do(job, out)


def _do(job, out):
    if "save" in job:
        from kerastk.training.checkpoint import Checkpoints

        Checkpoints(Path(job["save"])).save(tree(3))
        return 0
    import kerastk
    from kerastk.recipe import TASKS

    used = callbacks(out, at=job.get("at", ()), counted=job.get("counted", False))
    train, resume = (functools.partial(each, callbacks=used) for each in (kerastk.train, kerastk.resume))
    if "cli" in job:
        from kerastk.cli import main

        kerastk.train, kerastk.resume = train, resume
        sys.argv = ["kerastk", *job["cli"]]
        main()
        return 0
    try:
        if "resume" in job:
            resume(job["resume"], **job.get("options", {}))
        else:
            fields = dict(job["recipe"])
            train(TASKS[fields.pop("task", "finetune")](**fields), resume=True)
    except kerastk.KerastkError as error:
        print(f"{type(error).__name__}: {error}")
        return error.exit_code
    return 0


def _give_up():
    # Without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH root is like everybody else.
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[0] &= ~0b110
    libc.capset(header, sets)


def main():
    """See above."""
    if sys.argv[1:] != ["--serve"]:
        return work(json.loads(sys.argv[1]))
    for module in ("kerastk.cli", "kerastk.training.trainer", "matplotlib.figure", "tensorboard.plugins.hparams.api"):
        importlib.import_module(module)

    from tensorflow.python.eager import context

    # Its threads would not be there in what is forked.
    assert context.context_safe() is None
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            # It goes with its parent (PR_SET_PDEATHSIG).
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(writing)
            return work(job)
        os.close(writing)
        print(process, flush=True)
        with open(reading, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        Path(job["out"], "said").write_bytes(said)
        print(code, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
