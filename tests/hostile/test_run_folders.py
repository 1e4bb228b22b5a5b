"""Run folders from strangers: what is in them is checked, and nothing in them leads out of them."""

import hashlib
import io
import json
import os
import shutil
import zipfile

import keras
import numpy as np
import pytest

import kerastk
from kerastk.datasets.files import run_file
from kerastk.errors import KerastkError, RunError
from kerastk.evaluation import comparison, report
from kerastk.evaluation.evaluate import evaluate
from kerastk.evaluation.neighbours import Neighbours
from kerastk.networks.classifier import features_model
from kerastk.run import Run
from kerastk.tasks.photo_model import labels_of

LABELS = {
    "format": 1, "classes": ["cat", "dog"], "task": "finetune", "base": "mobilenet_0.25", "head": "dense",
    "scores": "probabilities", "image_size": 32, "resize": "crop", "colour": "RGB", "dtype": "uint8",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A run folder with all but the model."""
    run = Run.create(tmp_path, "run")
    run.write_environment({"versions": {}})
    run.labels_json.write_text(json.dumps(LABELS))
    run.data_json.write_text(json.dumps({"files": []}))
    run.metrics_json.write_text(json.dumps({"validation": {}}))
    run.log_csv.write_text("epoch,loss\n1,0.5\n")
    run.recipe_toml.write_text('task = "finetune"\n')
    run.vocabulary_json.write_text(json.dumps({"words": []}))
    run.predictions_conll.write_text("a\tO\tO\n\n")
    return run.path


def test_the_folder_is_one_of_a_run(folder):
    run = Run.open(folder)
    assert labels_of(run)["classes"] == ["cat", "dog"]
    assert (run.data, run.metrics, run.recipe.task) == ({"files": []}, {"validation": {}}, "finetune")
    assert run.log == [{"epoch": "1", "loss": "0.5"}]


# labels.json.


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "cat"}, {"classes": [1, 2]}, {"classes": []}, {"classes": None}, {"classes": {"cat": 1}},
        {"classes": ["cat", ["dog"]]}, {"classes": [str(number) for number in range(100_001)]},
        {"image_size": -32}, {"image_size": 0}, {"image_size": 10**9}, {"image_size": 10**4000}, {"image_size": "32"},
        {"image_size": True}, {"image_size": None}, {"image_size": [32]}, {"image_size": float("nan")},
        {"resize": "squash"}, {"resize": None}, {"resize": ["crop"]}, {"resize": {}},
        {"base": ["mobilenet_0.25"]}, {"base": {}}, {"base": None}, {"base": 7}, {"base": "x" * 10**6},
        {"head": "tail"}, {"head": ["dense"]}, {"head": None}, {"task": "tag"}, {"task": ["finetune"]}, {"task": None},
    ],
    ids=lambda change: f"{change}"[:40],
)  # fmt: skip
def test_labels_of_wrong_types_and_sizes_are_one_line(change, folder, refused):
    (folder / "labels.json").write_text(json.dumps(LABELS | change))
    kind = "tagger" if change.get("task") == "tag" else "classifier of photos"
    expected = f"{folder / 'labels.json'} does not describe a {kind}."
    if change.get("base") == "x" * 10**6:
        # Text that is no base: of no use to a later run, whatever the predictor says of the model that is missing.
        with pytest.raises(KerastkError):
            kerastk.load(folder)
    else:
        assert refused(kerastk.load, folder, kind=RunError) == expected
    with pytest.raises(KerastkError) as caught:
        kerastk.build(kerastk.Finetune(weights=str(folder)), data=[("1.jpg", "cat"), ("2.jpg", "dog")])
    assert "\n" not in str(caught.value)


JSON_FILES = {
    "environment.json": lambda path: Run.open(path).environment,
    "labels.json": lambda path: Run.open(path).labels,
    "data.json": lambda path: Run.open(path).data,
    "metrics.json": lambda path: Run.open(path).metrics,
    "vocabulary.json": lambda path: Run.open(path).vocabulary,
}
FILES = JSON_FILES | {
    "recipe.toml": lambda path: Run.open(path).recipe,
    "log.csv": lambda path: Run.open(path).log,
    "predictions.conll": lambda path: Run.open(path).tags,
}


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5000],
    ids=lambda content: f"{len(content)} {content[:5]!r}",
)  # fmt: skip
def test_json_of_no_table_is_one_line(name, content, folder, refused):
    (folder / name).write_bytes(content)
    message = refused(FILES[name], folder, kind=RunError)
    assert "damaged" in message


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_gigabyte_is_refused_unread(name, folder, refused):
    with open(folder / name, "wb") as file:
        file.truncate(2**30 + 1)
    refused(FILES[name], folder, megabytes=4, seconds=10)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'a\n"' + b"x" * 200_000, b"a\n" + b"x" * 200_000])
def test_a_log_that_is_no_table_is_one_line(content, folder, refused):
    (folder / "log.csv").write_bytes(content)
    assert "log.csv is damaged" in refused(FILES["log.csv"], folder, kind=RunError)


# Links.


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_is_refused(name, folder, refused, tmp_path):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert "link" in refused(FILES[name], folder, kind=RunError)


@pytest.mark.parametrize("name", ["checkpoint", "events"])
def test_a_folder_that_is_a_link_is_refused(name, folder, refused, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert "link" in refused(Run.open, folder, kind=RunError)


def test_a_lock_that_is_a_link_does_not_empty_what_it_leads_to(folder, refused, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "lock").symlink_to(tmp_path / "precious")

    def lock():
        with Run.open(folder).lock():
            pass

    refused(lock, kind=RunError)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_link_to_a_run_is_a_run(folder, tmp_path):
    (tmp_path / "linked").symlink_to(folder, target_is_directory=True)
    assert labels_of(Run.open(tmp_path / "linked"))["classes"] == ["cat", "dog"]


def test_a_file_of_a_run_is_itself(tmp_path, refused):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "c")
    assert run_file(tmp_path / "a", 3) == tmp_path / "a"
    assert "the limit is 0 MiB" in refused(run_file, tmp_path / "a", 2, kind=RunError)
    for name in ("b", "c", "."):
        assert "is a link or no file" in refused(run_file, tmp_path / name, 3, kind=RunError)
    with pytest.raises(FileNotFoundError):
        run_file(tmp_path / "none", 3)


# neighbours.npz.


def neighbours(path, **arrays):
    known = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = {"features": known, "truth": np.arange(6) % 2, "count": np.int64(2)} | arrays
    np.savez(path, **found)
    return path


def test_good_neighbours_are_read(tmp_path):
    assert Neighbours.load(neighbours(tmp_path / "neighbours.npz")).classes == 2


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    "arrays",
    [
        {"features": np.array([[Evil()]], object)},
        {"features": np.full((6, 4), np.nan, np.float32)},
        {"features": np.full((6, 4), "x")},
        {"features": np.zeros((6, 4), np.complex64)},
        {"features": np.zeros((0, 4), np.float32), "truth": np.zeros(0, np.int64)},
        {"truth": np.array([0, 1, 0, 1, 0, 2**62])},
        {"truth": np.array([0, 1, 0, 1, 0, -1])},
        {"truth": np.array([1, 2, 1, 2, 1, 2])},
        {"truth": np.array([0.0, 1, 0, 1, 0, 1])},
        {"truth": np.array(list("ababab"))},
        {"count": np.int64(7)},
        {"count": np.int64(0)},
        {"count": np.array([1, 2])},
        {"count": np.float64("inf")},
    ],
)
def test_other_arrays_are_one_line(arrays, tmp_path, refused, capfd):
    path = neighbours(tmp_path / "neighbours.npz", **arrays)
    assert str(path) in refused(Neighbours.load, path, kind=RunError)
    assert capfd.readouterr().out == ""


def test_arrays_that_are_larger_than_they_are_are_one_line(tmp_path, refused):
    path = neighbours(tmp_path / "neighbours.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**11, 4)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"features.npy": header.getvalue() + bytes(64)}).items():
            archive.writestr(name, data)
    assert str(path) in refused(Neighbours.load, path, kind=RunError, megabytes=2**30, seconds=10)


def test_arrays_that_swell_are_refused(tmp_path, refused):
    path = tmp_path / "neighbours.npz"
    np.savez_compressed(path, features=np.zeros((2**18, 64), np.float32), truth=np.zeros(2**18, np.int64), count=1)
    assert path.stat().st_size < 2**20
    assert "are not compressed" in refused(Neighbours.load, path, kind=RunError, megabytes=4)


def test_neighbours_that_are_a_link_are_refused(tmp_path, refused):
    neighbours(tmp_path / "elsewhere.npz")
    (tmp_path / "neighbours.npz").symlink_to(tmp_path / "elsewhere.npz")
    assert "link" in refused(Neighbours.load, tmp_path / "neighbours.npz", kind=RunError)


def test_neighbours_of_other_classes_do_not_belong_to_the_run(small_run, tmp_path):
    run = shutil.copytree(small_run.path, tmp_path / "run")
    features_model(keras.saving.load_model(run / "model.keras")).save(run / "model.keras")
    (run / "labels.json").write_text(json.dumps({**small_run.labels, "head": "knn"}))
    known = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    neighbours(run / "neighbours.npz", features=known, truth=np.arange(8) % 4)
    assert len(kerastk.load(run).classes) == 4
    for arrays in (
        {"features": known, "truth": np.arange(8) % 3},
        {"features": known, "truth": np.arange(8) % 5},
        {"features": known[:, :100], "truth": np.arange(8) % 4},
    ):
        neighbours(run / "neighbours.npz", **arrays)
        with pytest.raises(RunError, match="do not belong together"):
            kerastk.load(run)


# data.json, when a model is measured.


@pytest.fixture(scope="module")
def predictor(small_run):
    return kerastk.load(small_run.path)


@pytest.mark.parametrize(
    "data",
    [
        {}, {"files": 7}, {"files": [7]}, {"files": ["x"]}, {"files": [{}]}, {"files": [{"sha256": "x"}]},
        {"files": [{"sha256": ["x"], "split": "train"}]}, {"files": {"a": 1}}, {"files": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_photos_that_is_none_is_one_line(data, predictor, folder, digits, monkeypatch):
    (folder / "data.json").write_text(json.dumps(data))
    monkeypatch.setattr(predictor, "run", Run(folder))
    with pytest.raises(RunError, match=r"data\.json is damaged"):
        evaluate(predictor, [(str(path), path.parent.name) for path in sorted(digits.glob("*/1.png"))])


# A tagger's files, when its report is made.


@pytest.fixture
def tagger(tagger_run, tmp_path):
    """The run folder of a tagger, without its model."""
    folder = tmp_path / "tagger"
    shutil.copytree(tagger_run.path, folder, ignore=shutil.ignore_patterns("events", "model.keras", "report.html"))
    return Run(folder)


def judged_by(run, sentences):
    """Make these sentences, of (word, truth, answer), those that the run is judged by."""
    files = [each for each in run.data["files"] if each["split"] != "test"]
    for rows in sentences:
        digest = hashlib.sha256("\0".join(word for word, _, _ in rows).encode()).hexdigest()
        files.append({"path": "x:1", "sha256": digest, "tags": "", "split": "test"})
    run.write_data(json.dumps(run.data | {"files": files}))
    run.write_tags("".join("".join("\t".join(row) + "\n" for row in rows) + "\n" for rows in sentences))
    metrics = run.metrics
    metrics["test"] |= {"sentences": len(sentences), "tokens": sum(map(len, sentences))}
    run.write_metrics(metrics)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("make", [report.page, lambda run: comparison.page([run, run])], ids=["report", "comparison"])
def test_sentences_without_end_take_no_more_than_reading_them(make, tagger, bounded):
    # Every word is a span of its own and answered as another type, which compared each with each takes hours.
    run = judged_by(tagger, [[("word", "B-PER", "B-LOC")] * 100_000, [("a", "B-PER", "O")]])
    page, error = bounded(make, run, seconds=60, megabytes=400)
    assert error is None
    assert page.count('class="tagged"') == (make is report.page)


def test_words_and_tags_without_end_are_shortened(tagger, bounded):
    word, tag = "<b>" * 100_000, "B-" + "x" * 900
    page, error = bounded(report.page, judged_by(tagger, [[(word, tag, "O")]]))
    assert error is None
    assert len(page) < 150_000
    assert "<b><b>" not in page


def test_a_line_without_end_is_refused(tagger, refused):
    run = judged_by(tagger, [[("word", "O", "B-" + "x" * 1001)]])
    assert "predictions.conll is damaged" in refused(report.page, run, kind=RunError)


def test_ten_thousand_types_make_a_page(tagger, bounded):
    metrics = tagger.metrics
    row = {"right": 0, "guessed": 1, "spans": 1}
    types = {f"type {number}": row for number in range(10_000)}
    confusion = {name: {"O": 1} for name in types}
    metrics["test"] |= {"types": types, "spans": 10_000, "confusion": confusion}
    tagger.write_metrics(metrics)
    page, error = bounded(report.page, tagger, seconds=60, megabytes=400)
    assert error is None
    assert "9980 more types" in page
    metrics["test"] |= {"types": types | {"one more": row}, "spans": 10_001}
    tagger.write_metrics(metrics)
    assert "metrics.json is damaged" in str(bounded(report.page, tagger, megabytes=400)[1])


@pytest.mark.parametrize(
    "change",
    [
        {"words": 7}, {"words": ["a", "a"]}, {"words": [7]}, {"words": {"a": 1}}, {"characters": [["a"]]},
        {"characters": [str(number) for number in range(2001)]}, {"tags": []}, {"tags": None}, {"lower": "yes"},
        {"fold_digits": 1}, {"word_length": 0}, {"word_length": 10**9}, {"word_length": 20.0}, {"format": 9},
        {"more": 1},
    ],
    ids=lambda change: f"{change}"[:40],
)  # fmt: skip
def test_a_vocabulary_of_wrong_types_and_sizes_is_one_line(change, tagger, refused):
    tagger.write_vocabulary(tagger.vocabulary | change)
    assert "vocabulary.json is damaged" in refused(report.page, tagger, kind=RunError)
    assert "vocabulary" in refused(kerastk.load, tagger.path, kind=RunError)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "O"}, {"classes": []}, {"classes": [1, 2]}, {"classes": None}, {"classes": {"O": 1}},
        {"classes": [["O"], "B-PER"]}, {"scheme": "iob9"}, {"scheme": ["iob2"]}, {"scheme": "plain"}, {"scheme": None},
        {"source_scheme": "plain"}, {"source_scheme": {}}, {"task": "finetune"}, {"task": ["tag"]},
    ],
    ids=lambda change: f"{change}"[:40],
)  # fmt: skip
def test_labels_of_a_tagger_of_wrong_types_are_one_line(change, tagger, refused):
    tagger.labels_json.write_text(json.dumps(tagger.labels | change))
    assert "labels.json" in refused(report.page, tagger, kind=RunError)
    refused(kerastk.load, tagger.path)


def test_a_recipe_of_another_task_is_one_line(tagger, small_run, refused):
    shutil.copy(small_run.recipe_toml, tagger.recipe_toml)
    assert "labels.json is damaged" in refused(report.page, tagger, kind=RunError)
