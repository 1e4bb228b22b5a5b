"""What TensorBoard shows of a run: one writer, one step counter over all phases."""

import contextlib
import errno
import io
import os
import re
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
        # As bytes: a folder's name need not be UTF-8.
        folders = {name: os.fsencode(folder / name) for name in ("train", "validation")}
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
            self._summary.text(tag, markdown)

    def hyperparameters(self, values: dict[str, Any]) -> None:
        """The recipe, for the HParams tab."""
        from tensorboard.plugins.hparams import api

        plain = {k: v for k, v in values.items() if isinstance(v, bool | int | float)}
        plain |= {k: v.encode("utf-8", "backslashreplace").decode() for k, v in values.items() if isinstance(v, str)}
        with self._writing(), self._writers["train"].as_default(0):
            api.hparams(plain)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file of the folder by its path in it, all that was written included."""
        with self._writing():
            for writer in self._writers.values():
                writer.flush()
        return {_made_as(file): file.stat().st_size for file in _files(self._folder)}

    def close(self) -> None:
        """Flush and close the files."""
        with self._writing():
            for writer in self._writers.values():
                writer.close()

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


class Events(keras.callbacks.Callback):
    """Hands a run's figures to a `Writer`: learning rate and loss ten times an epoch, the rest at its end."""

    def __init__(self, writer: Writer, steps_per_epoch: int):
        super().__init__()
        self.writer = writer
        self.step = 0
        self._every = max(1, steps_per_epoch // 10)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count, and now and then write."""
        self.step += 1
        if self.step % self._every == 0:
            rate = learning_rate(self.model.optimizer)
            self.writer.scalars({"learning_rate": rate, "running_loss": float(logs["loss"])}, self.step)

    def row(self, row: dict) -> None:
        """An epoch's row, as `EpochRows` makes it."""
        shared = [key[4:] for key in row if key.startswith("val_")]
        own = {key: row[key] for key in ("photos_per_second", "wait_share")}
        self.writer.scalars({key: row[key] for key in shared if key in row} | own, self.step)
        self.writer.scalars({key: row["val_" + key] for key in shared}, self.step, "validation")

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"step": self.step, "sizes": self.writer.sizes()}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept; the files themselves are cut by `cut`."""
        self.step = state["step"]


def confusion_picture(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> np.ndarray:
    """The confusion matrix as a picture, (height, width, 3) uint8: rows are the truth, shares by row in colour."""
    from matplotlib.figure import Figure
    from PIL import Image

    from kerastk.screen import printable

    counts = np.asarray(confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(14.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 60:
        names = [name if len(name) <= 24 else name[:23] + "…" for name in map(printable, classes)]
        # A class may be called $x$: no mathematics in labels.
        axes.set_xticks(range(len(classes)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(classes)), names, parse_math=False)
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))
