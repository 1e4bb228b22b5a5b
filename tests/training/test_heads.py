"""Runs with a support vector machine or the nearest neighbours in place of the dense head."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kerastk
from kerastk.cli import commands
from kerastk.errors import RunError
from kerastk.training import probe

SCORES = {
    "svm": "softmax of decision values: their order means something, they are no probabilities",
    "knn": "shares of the nearest neighbours' votes",
}


def train(digits, small_run, folder, **values):
    recipe = kerastk.Finetune(data=str(digits), weights=str(small_run.path), threads=2, runs=str(folder), **values)
    return kerastk.train(recipe, show=False)


@pytest.fixture(scope="module")
def svm_run(digits, small_run, tmp_path_factory):
    """A run with head svm, and the machine that it found."""
    folder, found = tmp_path_factory.mktemp("svm"), []

    def spy(*given):
        found.append(probe.svm(*given))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        patch.setitem(probe.SOLVERS, "svm", spy)
        return train(digits, small_run, folder, head="svm"), found[0]


@pytest.fixture(scope="module")
def knn_run(digits, small_run, tmp_path_factory):
    """A run with head knn, on photos that are gone when it is used."""
    folder = tmp_path_factory.mktemp("knn")
    shutil.copytree(digits, folder / "gone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        run = train(folder / "gone", small_run, folder / "runs", head="knn")
    shutil.rmtree(folder / "gone")
    shutil.rmtree(folder / "cache")
    return run


@pytest.fixture(scope="module", params=["svm", "knn"])
def predictor(request, svm_run, knn_run):
    return kerastk.load(svm_run[0] if request.param == "svm" else knn_run)


@pytest.fixture
def run(predictor):
    return predictor.run


def invoke(*arguments):
    return CliRunner().invoke(commands, [str(each) for each in arguments], catch_exceptions=False)


def test_a_photo_in_any_form_gets_one_answer(predictor, digits):
    path = digits / "2" / "3.png"
    top = predictor(path, top=4)
    assert {answer.label for answer in top} == set("0123")
    assert sum(answer.probability for answer in top) == pytest.approx(1, abs=1e-5)
    with Image.open(path) as image:
        for form in (str(path), path.read_bytes(), image.copy(), np.asarray(image)):
            assert predictor(form, top=4) == top


def test_the_run_learns_and_says_what_it_is(run):
    head = run.recipe.head
    assert run.metrics["test"]["accuracy"] > 2 * run.metrics["test"]["majority_share"] - 0.1
    assert (run.labels["head"], run.labels["scores"]) == (head, SCORES[head])
    assert run.neighbours_npz.exists() == (head == "knn")
    (row,) = run.log
    assert (row["phase"], row["epoch"]) == ("probe", "0")
    assert run.metrics["best"]["epoch"] == 0
    assert float(row["val_accuracy"]) == run.metrics["validation"]["accuracy"]
    assert float(row["val_cross_entropy"]) == pytest.approx(run.metrics["validation"]["cross_entropy"], abs=1e-3)


def test_predictions_of_the_test_split_are_the_predictors(predictor, run, digits):
    rows = list(csv.DictReader(open(run.predictions_csv)))
    assert len(rows) == 24
    answers = predictor([digits / row["path"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert row["prediction"] == answer.label
        assert float(row["probability"]) == pytest.approx(answer.probability, abs=1e-5)
    right = sum(row["truth"] == row["prediction"] for row in rows) / len(rows)
    assert right == pytest.approx(run.metrics["test"]["accuracy"])


def test_predict_and_evaluate_work_from_the_command_line(predictor, run, digits, tmp_path):
    result = invoke("predict", run.path, digits / "1", "--out", tmp_path / "answers.csv", "--top", 2)
    assert result.exit_code == 0
    rows = list(csv.DictReader(open(tmp_path / "answers.csv")))
    assert [row["error"] for row in rows] == [""] * 40
    for row, best in zip(rows, predictor([row["path"] for row in rows]), strict=True):
        assert row["label"] == best.label
        assert float(row["probability"]) == pytest.approx(best.probability, abs=1e-4)
        assert float(row["probability"]) + float(row["probability_2"]) < 1.0001

    invoke("evaluate", run.path, digits, "--out", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["photos"], figures["trained_on"]) == (160, 136)
    assert figures["unseen"]["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"])


def test_plain_keras_opens_the_model(svm_run, knn_run):
    photo = np.zeros((1, 32, 32, 3), np.uint8)
    for run, outputs in ((svm_run[0], 4), (knn_run, 256)):
        model = keras.saving.load_model(run.model_keras, safe_mode=True)
        assert model(photo).shape == (1, outputs)
        assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_the_logits_of_a_machine_are_its_decision_values(svm_run, digits, small_run):
    run, found = svm_run
    photos = [(str(path), "x") for path in sorted((digits / "1").glob("*.png"))[:20]]
    seen = kerastk.embed(kerastk.Finetune(weights=str(small_run.path)), data=photos).vectors
    decisions = found.estimator.decision_function((seen - found.mean) / found.deviation)
    predictor = kerastk.load(run)
    head = predictor.model.get_layer("head")
    np.testing.assert_allclose(np.asarray(head(seen)), decisions, atol=1e-4)
    scores = predictor.scores(np.stack([predictor.pixels(path) for path, _ in photos]))
    np.testing.assert_allclose(scores, np.asarray(keras.ops.softmax(decisions)), atol=1e-3)


def test_the_neighbours_are_the_training_photos_without_mirrored_ones(knn_run, digits, small_run):
    with np.load(knn_run.neighbours_npz, allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    assert {name: each.shape for name, each in kept.items()} == {"features": (112, 256), "truth": (112,), "count": ()}
    names = [file["path"] for file in knn_run.data["files"] if file["split"] == "train"]
    assert kept["truth"].tolist() == [int(name.split("/")[0]) for name in names]
    photos = [(str(digits / name), name.split("/")[0]) for name in names]
    seen = kerastk.embed(kerastk.Finetune(weights=str(small_run.path)), data=photos)
    found = dict(zip(seen.paths, seen.vectors, strict=True))
    np.testing.assert_allclose(kept["features"], [found[path] for path, _ in photos], atol=1e-5)
    # A photo that is among them is its own nearest neighbour, whatever the others say.
    assert kerastk.load(knn_run)(photos[0][0]).label == photos[0][1]


def test_a_damaged_file_of_neighbours_is_refused_in_one_line(knn_run, tmp_path):
    for name in ("environment.json", "labels.json", "model.keras"):
        shutil.copy(knn_run.path / name, tmp_path)
    with pytest.raises(RunError, match=r"^cannot read [^\n]*neighbours\.npz: [^\n]*No such file[^\n]*$"):
        kerastk.load(tmp_path)
    (tmp_path / "neighbours.npz").write_bytes(knn_run.neighbours_npz.read_bytes()[:9000])
    with pytest.raises(RunError, match=r"^cannot read [^\n]*neighbours\.npz: [^\n]*$"):
        kerastk.load(tmp_path)
    # Whole, but of another base.
    with open(tmp_path / "neighbours.npz", "wb") as file:
        np.savez(file, features=np.zeros((3, 9), np.float32), truth=np.zeros(3, np.int64), count=1)
    with pytest.raises(RunError, match="do not belong together"):
        kerastk.load(tmp_path)


def test_a_later_run_starts_from_the_network_of_one_with_neighbours(knn_run, small_run, digits, tmp_path):
    run = train(digits, knn_run, tmp_path, unfreeze="head")
    assert (run.recipe.base, run.labels["image_size"]) == ("mobilenet_0.25", 32)
    before, after = (keras.saving.load_model(each.model_keras) for each in (small_run, run))
    assert after.output.shape == (None, 4)
    for weight, other in zip(before.weights[:-2], after.weights[:-2], strict=True):
        assert np.array_equal(weight, other), weight.path
    assert kerastk.load(run)(digits / "0" / "0.png").label in set("0123")
