"""The run folder: the only product of a run, every path in it and everything that is written to it."""

import contextlib
import csv
import dataclasses
import errno
import io
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerastk.datasets.files import run_file
from kerastk.datasets.table import csv_writer
from kerastk.errors import RunError
from kerastk.recipe import Recipe, dump, load
from kerastk.storage import atomic_path, clear_temporary, write_atomic

FORMAT = 1
# No file of a run that kerastk reads is larger, a million photos' data.json included.
_LARGEST = 2**30


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder. Reading is lazy; only the trainer writes.

    >>> run = kerastk.train(recipe)
    >>> run.metrics["test"]["accuracy"]
    0.93
    """

    path: Path

    @classmethod
    def create(cls, folder: Path, name: str) -> "Run":
        """A new, empty run folder.

        Raises:
            RunError: the name is taken, or the folder cannot be made.
        """
        path = folder / name
        try:
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            folder.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            raise RunError(f"the run {str(path)!r} exists already; choose another --name or remove it.") from None
        except OSError as error:
            raise RunError(f"cannot make the run folder {str(path)!r}: {error.strerror}.") from None
        return cls(path)

    @classmethod
    def create_next(cls, folder: Path, stem: str) -> "Run":
        """A new run folder `<stem>-<n>`; another process may be doing the same."""
        while True:
            name = next_name(folder, stem)
            try:
                return cls.create(folder, name)
            except RunError:
                if not (folder / name).exists():
                    raise

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Run":
        """An existing run folder of this format. Raises RunError."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise RunError(f"no run folder at {os.fspath(path)!r}.")
        run._refuse_links()
        try:
            form = run.environment.get("format")
        except RunError:
            raise RunError(f"{os.fspath(path)!r} is no run folder: environment.json is missing or damaged.") from None
        if form != FORMAT:
            raise RunError(f"{os.fspath(path)!r} has format {form!r:.20}; this version of kerastk reads {FORMAT}.")
        return run

    def _refuse_links(self) -> None:
        """A run may come from anybody: nothing in it may lead out of its folder, to be read or to be written."""
        for folder in (self.path, self.checkpoint):
            try:
                links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RunError(f"cannot read the run folder {str(folder)!r}: {error.strerror}.") from None
            if links:
                raise RunError(f"{links[0]} is a link; the files of a run lie in its folder themselves.")

    recipe_toml = property(lambda self: self.path / "recipe.toml")
    environment_json = property(lambda self: self.path / "environment.json")
    data_json = property(lambda self: self.path / "data.json")
    log_csv = property(lambda self: self.path / "log.csv")
    events = property(lambda self: self.path / "events")
    checkpoint = property(lambda self: self.path / "checkpoint")
    model_keras = property(lambda self: self.path / "model.keras")
    last_keras = property(lambda self: self.path / "last.keras")
    neighbours_npz = property(lambda self: self.path / "neighbours.npz")
    vocabulary_json = property(lambda self: self.path / "vocabulary.json")
    labels_json = property(lambda self: self.path / "labels.json")
    metrics_json = property(lambda self: self.path / "metrics.json")
    predictions_conll = property(lambda self: self.path / "predictions.conll")
    predictions_csv = property(lambda self: self.path / "predictions.csv")
    mistakes_json = property(lambda self: self.path / "mistakes.json")
    gallery_json = property(lambda self: self.path / "gallery.json")
    encoder_keras = property(lambda self: self.path / "encoder.keras")
    decoder_keras = property(lambda self: self.path / "decoder.keras")
    features_keras = property(lambda self: self.path / "features.keras")
    features_npz = property(lambda self: self.path / "features.npz")
    report_html = property(lambda self: self.path / "report.html")

    @property
    def begun(self) -> bool:
        """Whether all that a run begins with is there; environment.json is written last of it."""
        return self.environment_json.exists()

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end; metrics.json is written last."""
        return self.metrics_json.exists()

    @property
    def busy(self) -> bool:
        """Whether a process is training this run."""
        import fcntl

        try:
            with open(run_file(self.checkpoint / "lock", _LARGEST)) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (OSError, RunError):
            return False
        return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one process that trains this run; the lock goes with the process, however it ends.

        Raises:
            RunError: another process is at it, or the folder cannot be written.
        """
        import fcntl

        with contextlib.ExitStack() as stack:
            try:
                self.checkpoint.mkdir(exist_ok=True)
                file = stack.enter_context(open(self.checkpoint / "lock", "a+"))
            except OSError as error:
                raise RunError(f"cannot write into the run {str(self.path)!r}: {error.strerror}.") from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                owner = " ".join(file.read(200).split()) or "another process"
                raise RunError(f"{owner} is training the run {str(self.path)!r}; wait for it or stop it.") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            clear_temporary(self.path)
            yield

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        with contextlib.suppress(FileNotFoundError):
            run_file(self.recipe_toml, _LARGEST)
        return load(self.recipe_toml)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return self._json(self.metrics_json)

    @property
    def labels(self) -> dict[str, Any]:
        """The content of labels.json: `classes` in output order, and the input contract."""
        return self._json(self.labels_json)

    @property
    def assigned(self) -> dict[str, str]:
        """The split of each item of data.json, by SHA-256."""
        return {item["sha256"]: item["split"] for item in self.data["files"]}

    @property
    def vocabulary(self) -> dict[str, Any]:
        """The content of vocabulary.json, of a tagger."""
        return self._json(self.vocabulary_json)

    @property
    def data(self) -> dict[str, Any]:
        """The content of data.json."""
        return self._json(self.data_json)

    @property
    def mistakes(self) -> dict[str, Any]:
        """The content of mistakes.json: the photos that the report shows, with small pictures."""
        return self._json(self.mistakes_json)

    @property
    def gallery(self) -> dict[str, Any]:
        """The content of gallery.json, of an autoencoder: the pictures that the report shows."""
        return self._json(self.gallery_json)

    @property
    def environment(self) -> dict[str, Any]:
        """The content of environment.json."""
        return self._json(self.environment_json)

    @property
    def log(self) -> list[dict[str, str]]:
        """The rows of log.csv."""
        return self._table(self.log_csv, "strict")

    @property
    def predictions(self) -> list[dict[str, str]]:
        """The rows of predictions.csv; texts that a spreadsheet would run have an apostrophe in front."""
        return self._table(self.predictions_csv, "surrogateescape")

    @property
    def tags(self) -> str:
        """The content of predictions.conll, of a tagger: lines of word, true tag and answer; an empty one behind each
        sentence."""
        try:
            return run_file(self.predictions_conll, _LARGEST).read_bytes().decode("utf-8")
        except OSError:
            raise RunError(f"{self.path} has no {self.predictions_conll.name}.") from None
        except ValueError:
            raise RunError(f"{self.predictions_conll} is damaged.") from None

    def _table(self, path: Path, errors: str) -> list[dict[str, str]]:
        try:
            with open(run_file(path, _LARGEST), encoding="utf-8", errors=errors, newline="") as file:
                return list(csv.DictReader(file))
        except OSError:
            raise RunError(f"{self.path} has no {path.name}.") from None
        except (ValueError, csv.Error):
            raise RunError(f"{path} is damaged.") from None

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(run_file(path, _LARGEST).read_text(encoding="utf-8"))
        except OSError:
            raise RunError(f"{self.path} has no {path.name}: the run did not come so far.") from None
        except (ValueError, RecursionError):
            raise RunError(f"{path} is damaged.") from None
        if not isinstance(content, dict):
            raise RunError(f"{path} is damaged.")
        return content

    def kept(self, last: bool) -> Path:
        """The file of the best model or of the last one. Raises RunError where the last was not kept."""
        if last and not self.last_keras.exists():
            raise RunError(f"{self.path} has the best model alone; train with --keep-last to have the last one too.")
        return self.last_keras if last else self.model_keras

    def write_recipe(self, recipe: Recipe) -> None:
        """recipe.toml"""
        write_atomic(self.recipe_toml, dump(recipe))

    def write_environment(self, environment: dict[str, Any]) -> None:
        """environment.json, with the folder's format version; after it the run counts as begun."""
        write_atomic(self.environment_json, json.dumps({"format": FORMAT, **environment}, indent=1))

    def write_data(self, text: str) -> None:
        """data.json"""
        write_atomic(self.data_json, text)

    def write_labels(self, classes: list[str], contract: dict[str, Any]) -> None:
        """labels.json"""
        write_atomic(self.labels_json, json.dumps({"format": FORMAT, "classes": classes, **contract}, indent=1))

    def write_vocabulary(self, content: dict[str, Any]) -> None:
        """vocabulary.json, of a tagger."""
        write_atomic(self.vocabulary_json, json.dumps(content))

    def write_tags(self, columns: str) -> None:
        """predictions.conll, of a tagger."""
        write_atomic(self.predictions_conll, columns)

    def write_log(self, rows: list[dict]) -> None:
        """log.csv, whole, after each epoch."""
        self._write_csv(self.log_csv, rows)

    def write_predictions(self, rows: list[dict]) -> None:
        """predictions.csv"""
        self._write_csv(self.predictions_csv, rows)

    def write_mistakes(self, content: dict[str, Any]) -> None:
        """mistakes.json"""
        write_atomic(self.mistakes_json, json.dumps(content))

    def write_gallery(self, content: dict[str, Any]) -> None:
        """gallery.json, of an autoencoder."""
        write_atomic(self.gallery_json, json.dumps(content))

    def write_report(self, page: str) -> None:
        """report.html"""
        write_atomic(self.report_html, page)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """metrics.json; after it the run counts as complete."""
        write_atomic(self.metrics_json, json.dumps(metrics, indent=1))

    def write_model(self, model: Any) -> None:
        """model.keras"""
        with atomic_path(self.model_keras) as temporary:
            model.save(temporary)

    def write_part(self, name: str, model: Any) -> None:
        """encoder.keras or decoder.keras, of an autoencoder."""
        with atomic_path({"encoder": self.encoder_keras, "decoder": self.decoder_keras}[name]) as temporary:
            model.save(temporary)

    def write_features(self, model: Any, distance: Any) -> None:
        """features.keras and features.npz, of an autoencoder with a second score."""
        with atomic_path(self.features_keras) as temporary:
            model.save(temporary)
        distance.save(self.features_npz)

    def write_last(self, model: Any) -> None:
        """last.keras, of a run with keep_last."""
        with atomic_path(self.last_keras) as temporary:
            model.save(temporary)

    def write_neighbours(self, neighbours: Any) -> None:
        """neighbours.npz, of a run with head knn."""
        neighbours.save(self.neighbours_npz)

    def write_projector(self, files: dict[str, str | bytes]) -> None:
        """What TensorBoard's projector shows, by file name, beside the events of validation; in this order."""
        for name, content in files.items():
            write_atomic(self.events / "validation" / name, content)

    def _write_csv(self, path: Path, rows: list[dict]) -> None:
        text = io.StringIO(newline="")
        # Phases may have figures of their own.
        write = csv_writer(text, list(dict.fromkeys(name for row in rows for name in row)))
        for row in rows:
            write(row)
        write_atomic(path, text.getvalue())


def next_name(folder: Path, stem: str) -> str:
    """`<stem>-<n>` with the smallest n above all that are there."""
    taken = [0]
    if folder.is_dir():
        for entry in folder.iterdir():
            match = re.fullmatch(re.escape(stem) + r"-(\d{1,9})", entry.name)
            if match:
                taken.append(int(match[1]))
    return f"{stem}-{max(taken) + 1}"
