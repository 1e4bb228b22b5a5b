"""What TensorBoard shows of a run: one writer, one step counter over all phases."""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk.training.phases import learning_rate


class Writer:
    """Writes event files: `events/train` and `events/validation` hold the same tags, so that curves overlay.

    Steps are batches trained since the run began. A full disk is an OSError.
    """

    def __init__(self, folder: Path):
        import tensorflow

        self._folder = folder
        self._summary = tensorflow.summary
        self._profiler = tensorflow.profiler.experimental
        self._tracing = False
        self.open()

    def open(self) -> None:
        """Begin new files; after `close`, behind what is there."""
        # As bytes: a folder's name need not be UTF-8.
        folders = {name: os.fsencode(self._folder / name) for name in ("train", "validation")}
        with self._writing():
            self._writers = {name: self._summary.create_file_writer(path) for name, path in folders.items()}

    def scalars(self, values: dict[str, float], step: int, split: str = "train") -> None:
        """Figures at a step."""
        with self._writing(), self._writers[split].as_default(step):
            for tag, value in values.items():
                self._summary.scalar(tag, value)

    def image(self, tag: str, pixels: np.ndarray, step: int, split: str = "train") -> None:
        """A picture, (height, width, 3) uint8."""
        with self._writing(), self._writers[split].as_default(step):
            self._summary.image(tag, pixels[None])

    def text(self, tag: str, markdown: str) -> None:
        """A text in Markdown."""
        with self._writing(), self._writers["train"].as_default(0):
            self._summary.text(tag, _unicode(markdown))

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """How finite values are distributed."""
        with self._writing(), self._writers["train"].as_default(step):
            self._summary.histogram(tag, values)

    def curve(self, tag: str, truth: np.ndarray, scores: np.ndarray, step: int) -> None:
        """Precision and recall at 201 thresholds, from true or false and a score from 0 to 1 for each item."""
        from tensorboard.plugins.pr_curve.summary import pb

        self._raw(pb(tag, truth, np.clip(scores, 0, 1)), step, "validation")

    def graph(self, graph: Any) -> None:
        """A network, as a GraphDef."""
        import tensorflow

        # TensorFlow takes its own kind of it alone.
        own = tensorflow.compat.v1.GraphDef.FromString(graph.SerializeToString())
        with self._writing(), self._writers["train"].as_default(0):
            self._summary.graph(own)

    def hyperparameters(self, name: str, values: dict[str, Any], figures: dict[str, str], first: Sequence[str]) -> None:
        """A run of that name begins with these values, of which some may be None: for the HParams tab.

        `figures` gives the scalars, by tag, that are columns of the tab, and their heads. The tab shows five of the
        values before it is asked for more: let these be `first`. All runs in a folder should have the same columns.
        """
        from tensorboard.plugins.hparams import api_pb2, summary

        plain = {k: v for k, v in values.items() if isinstance(v, bool | int | float)}
        plain |= {k: _unicode(v) for k, v in values.items() if isinstance(v, str)}
        # To those that differ from run to run the tab gives the first places.
        columns = [api_pb2.HParamInfo(name=each, differs=each in first) for each in values]
        metrics = [
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=head) for tag, head in figures.items()
        ]
        self._raw(summary.experiment_pb(columns, metrics), 0)
        self._raw(summary.session_start_pb(plain, group_name=_unicode(name)), 0)

    def finished(self) -> None:
        """The run has come to its end: for the HParams tab."""
        from tensorboard.plugins.hparams import api_pb2, summary

        self._raw(summary.session_end_pb(api_pb2.STATUS_SUCCESS), 0)

    def begin_trace(self) -> None:
        """Trace what TensorFlow computes; an earlier trace is removed."""
        folder = self._folder / "train"
        shutil.rmtree(folder / "plugins" / "profile", ignore_errors=True)
        with self._writing():
            self._profiler.start(os.fsencode(folder))
        self._tracing = True

    def traced(self, step: int) -> contextlib.AbstractContextManager:
        """The block is a step, in the trace."""
        return self._profiler.Trace("train", step_num=step, _r=1)

    def end_trace(self) -> None:
        """Write the trace, if there is one."""
        if self._tracing:
            self._tracing = False
            with self._writing():
                self._profiler.stop()

    def flush(self) -> None:
        """All that was written is in the files."""
        with self._writing():
            for writer in self._writers.values():
                writer.flush()

    def sizes(self) -> dict[str, int]:
        """Bytes of each file of the folder by its path in it, all that was written included."""
        self.flush()
        return {_made_as(file): file.stat().st_size for file in _files(self._folder)}

    def close(self) -> None:
        """Flush and close the files, and end a trace that was left."""
        self.end_trace()
        with self._writing():
            for writer in self._writers.values():
                writer.close()

    def _raw(self, summary: Any, step: int, split: str = "train") -> None:
        """A summary that a plugin of TensorBoard has made."""
        with self._writing(), self._writers[split].as_default(step):
            self._summary.experimental.write_raw_pb(summary.SerializeToString())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        import tensorflow

        try:
            yield
        except tensorflow.errors.OpError as error:
            reason = " ".join(re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error.message)).split())
            raise OSError(errno.EIO, f"TensorBoard's events cannot be written ({reason})", str(self._folder)) from None


def cut(folder: Path, sizes: dict[str, int]) -> None:
    """Drop what was written to event files after `Writer.sizes` gave `sizes`: files are cut, new ones removed.

    What is left comes before all that is written from now on, also where the clock was set back: TensorBoard reads the
    files in the order of their names, in which their seconds stand, and forgets steps that are followed by lower ones.
    """
    for file in _files(folder):
        size = sizes.get(_made_as(file), 0)
        if size == 0:
            file.unlink()
        elif size < file.stat().st_size:
            os.truncate(file, size)
    for each in folder.glob("*"):
        kept = sorted(each.glob("*.tfevents.*"))
        if kept and int(_SECONDS.search(kept[-1].name)[2]) >= int(time.time()):
            for number, file in enumerate(kept):
                file.rename(file.with_name(_SECONDS.sub(rf"\g<1>{number:010d}.\2", file.name)))


# The seconds in a file's name, behind the number that `cut` may have put there; no second begins with 0.
_SECONDS = re.compile(r"(\.tfevents\.)(?:0\d{9}\.)?(\d+)")


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("*/*.tfevents.*"))


def _made_as(file: Path) -> str:
    """The folder and the name that a file was made with."""
    name = _SECONDS.sub(r"\1\2", file.name)
    return f"{file.parent.name}/{name}"


def _unicode(text: str) -> str:
    """A text in which a name may stand that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


class Events(keras.callbacks.Callback):
    """Hands a run's figures to a `Writer`: learning rate, loss and, with float16, what the loss is scaled by, ten times
    an epoch; the rest at its end.

    `step` counts the run's batches; with `histograms` each epoch's end shows the weights that are trained.
    """

    def __init__(self, writer: Writer, steps_per_epoch: int, *, histograms: bool = False):
        super().__init__()
        self.writer = writer
        self.step = 0
        self._every = max(1, steps_per_epoch // 10)
        self._histograms = histograms

    @property
    def due(self) -> bool:
        """Whether figures are written after this batch."""
        return self.step % self._every == 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count, and now and then write."""
        self.step += 1
        if self.due:
            if hasattr(self.model, "jax_state_sync"):
                # Within an epoch, on JAX, the optimizer's variables are those of its begin.
                self.model.jax_state_sync()
            figures = {"learning_rate": learning_rate(self.model.optimizer), "running_loss": float(logs["loss"])}
            scale = getattr(self.model.optimizer, "dynamic_scale", None)
            if scale is not None:
                figures["loss_scale"] = float(np.array(scale))
            self.writer.scalars(figures, self.step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """The weights, if they are wanted."""
        for variable in self.model.trainable_variables if self._histograms else ():
            values = np.array(variable)
            if np.isfinite(values).all():
                self.writer.histogram(f"weights/{variable.path}", values, self.step)

    def row(self, row: dict) -> None:
        """An epoch's row, as `EpochRows` makes it."""
        shared = [key[4:] for key in row if key.startswith("val_")]
        own = {key: row[key] for key in row if key.endswith("_per_second") or key == "wait_share"}
        self.writer.scalars({key: row[key] for key in shared if key in row} | own, self.step)
        self.writer.scalars({key: row["val_" + key] for key in shared}, self.step, "validation")

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"step": self.step, "sizes": self.writer.sizes()}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept; the files themselves are cut by `cut`."""
        self.step = state["step"]
