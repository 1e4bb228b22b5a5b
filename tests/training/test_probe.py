"""The solved head: the algebra by itself, then whole runs that begin with it."""

import csv
import dataclasses
import json
import tomllib

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerastk
from kerastk.errors import RecipeError
from kerastk.evaluation.metrics import classification
from kerastk.screen import Screen
from kerastk.training import probe
from kerastk.training.plan import plan


def features(classes, rows=150, seed=0, noise=2.0):
    """(rows, 12) float32 features of different sizes, and their classes; the same problem for every seed."""
    problem = np.random.default_rng(100)
    centres = problem.normal(0, 1, (classes, 12))
    scales, offsets = 10.0 ** problem.uniform(-0.4, 0.4, 12), problem.uniform(-5, 5, 12)
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(rows) % classes)
    values = centres[truth] + random.normal(0, noise, (rows, 12))
    return (values * scales + offsets).astype(np.float32), truth


def dense(head, *, softmax):
    """What a Keras layer with the head's weights makes of features."""
    layer = keras.layers.Dense(len(head[1]), activation="softmax" if softmax else None)
    layer.build((None, len(head[0])))
    layer.set_weights(list(head))
    return lambda values: np.asarray(layer(values))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_folded_regression_gives_its_probabilities(classes):
    values, truth = features(classes)
    unseen, _ = features(classes, seed=1)
    scaler = StandardScaler().fit(values)
    solved = LogisticRegression(max_iter=1000).fit(scaler.transform(values), truth)
    folded = probe.fold(solved.coef_, solved.intercept_, scaler.mean_, scaler.scale_)
    assert [each.shape for each in folded] == [(12, classes), (classes,)]
    assert {each.dtype for each in folded} == {np.dtype(np.float32)}
    expected = solved.predict_proba(scaler.transform(unseen))
    np.testing.assert_allclose(dense(folded, softmax=True)(unseen), expected, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_folded_support_vector_machine_gives_its_decision_values(classes):
    values, truth = features(classes)
    unseen, _ = features(classes, seed=1)
    scaler = StandardScaler().fit(values)
    solved = LinearSVC(random_state=0).fit(scaler.transform(values), truth)
    folded = probe.fold(solved.coef_, solved.intercept_, scaler.mean_, scaler.scale_)
    found = dense(folded, softmax=False)(unseen)
    decisions = solved.decision_function(scaler.transform(unseen))
    if classes == 2:
        # Of two classes the first is the zero that the other is measured against.
        assert not found[:, 0].any()
        found = found[:, 1]
    np.testing.assert_allclose(found, decisions, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_solved_head_is_the_regression_on_standardised_features(classes):
    values, truth = features(classes)
    unseen, their_truth = features(classes, seed=1)
    head = probe.logistic(values, truth, unseen, their_truth)
    scaler = StandardScaler().fit(values)
    solved = LogisticRegression(C=head.strength, max_iter=1000, tol=1e-8).fit(scaler.transform(values), truth)
    expected = solved.predict_proba(scaler.transform(unseen))
    # The solver stops where a step gains next to nothing.
    np.testing.assert_allclose(head.probabilities(unseen), expected, atol=0.01)
    # What goes into the Dense layer is exactly what was judged.
    own = head.estimator.predict_proba((unseen - head.mean) / head.deviation)
    np.testing.assert_allclose(dense((head.kernel, head.bias), softmax=True)(unseen), own, atol=1e-5)
    np.testing.assert_allclose(head.probabilities(unseen), own, atol=1e-5)


def test_the_strength_is_the_one_of_the_lowest_cross_entropy_on_validation():
    values, truth = features(5, rows=60, noise=3.0)
    unseen, their_truth = features(5, seed=1, noise=3.0)
    scaler = StandardScaler().fit(values)

    def loss(strength):
        solved = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(values), truth)
        found = solved.predict_proba(scaler.transform(unseen))
        return -np.log(found[np.arange(len(their_truth)), their_truth]).mean()

    losses = [loss(strength) for strength in probe.LOGISTIC_CS]
    lowest = int(np.argmin(losses))
    # Neither end of the grid, or the choice would be none.
    assert 0 < lowest < len(losses) - 1
    assert probe.logistic(values, truth, unseen, their_truth).strength == probe.LOGISTIC_CS[lowest]


def test_the_strength_of_the_machine_is_the_one_of_the_fewest_wrong_answers():
    values, truth = features(5, rows=60, noise=3.0)
    unseen, their_truth = features(5, seed=1, noise=3.0)
    scaler = StandardScaler().fit(values)

    def wrong(strength):
        solved = LinearSVC(C=strength, max_iter=5000, random_state=0).fit(scaler.transform(values), truth)
        return np.mean(solved.predict(scaler.transform(unseen)) != their_truth)

    shares = [wrong(strength) for strength in probe.SVM_CS]
    assert len(set(shares)) > 1
    head = probe.svm(values, truth, unseen, their_truth)
    assert np.mean(head.probabilities(unseen).argmax(axis=1) != their_truth) == min(shares)
    assert head.strength == probe.SVM_CS[int(np.argmin(shares))]


def test_a_feature_that_is_dead_or_nearly_so_gets_no_large_weight():
    values, truth = features(3)
    unseen, their_truth = features(3, seed=1)
    for each in (values, unseen):
        each[:, 3] = 7.0
        each[:, 4] = 0.0
    values[5, 4] = 1e-3
    head = probe.logistic(values, truth, unseen, their_truth)
    usual = np.abs(np.delete(head.kernel, [3, 4], axis=0)).max()
    assert np.isfinite(head.kernel).all()
    assert np.abs(head.kernel[[3, 4]]).max() <= usual
    # Alive in a new photo, it does not decide the answer.
    before = head.probabilities(unseen)
    unseen[:, 4] = 0.01
    np.testing.assert_allclose(head.probabilities(unseen), before, atol=0.01)


def test_a_network_that_is_dead_altogether_gives_the_shares_of_the_classes():
    truth = np.array([0, 0, 0, 1])
    head = probe.logistic(np.zeros((4, 6), np.float32), truth, np.zeros((4, 6), np.float32), truth)
    np.testing.assert_allclose(head.probabilities(np.zeros((1, 6), np.float32)), [[0.75, 0.25]], atol=1e-3)


def test_what_is_too_large_to_be_solved_is_said(monkeypatch):
    assert probe.fits(10_000, 1280, 24) is None
    monkeypatch.setattr(probe, "MEMORY_BYTES", 8 * 10_000 * 1280 - 1)
    assert probe.fits(10_000, 1280, 24) == "the features of 10,000 photos and views would take 0.1 GB"
    monkeypatch.setattr(probe, "MEMORY_BYTES", 8 * 10_000 * 1280)
    assert probe.fits(10_000, 1280, 24) is None
    monkeypatch.setattr(probe, "WORK", 10_000 * 1280 * 24 - 1)
    assert "10,000 photos and views in 24 classes would take the solver too long" in probe.fits(10_000, 1280, 24)


# Whole runs.


def recipe(digits, small_run, folder, **values):
    settings = {"weights": str(small_run.path), "unfreeze": "head", "threads": 2, "runs": str(folder), **values}
    return kerastk.Finetune(data=str(digits), **settings)


@dataclasses.dataclass
class Solved:
    run: kerastk.Run
    head: probe.Head
    # What the solver was given.
    rows: np.ndarray
    truth: np.ndarray
    val_rows: np.ndarray


@pytest.fixture(scope="module")
def solved(digits, small_run, tmp_path_factory):
    """A run that solves its head and trains nothing, and what its solver saw and found."""
    folder = tmp_path_factory.mktemp("solved")
    seen = []

    def spy(*given):
        seen.append((*given, probe.logistic(*given)))
        return seen[-1][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        patch.setitem(probe.SOLVERS, "logistic", spy)
        run = kerastk.train(recipe(digits, small_run, folder), show=False)
    ((rows, truth, val_rows, *_, head),) = seen
    return Solved(run, head, rows, truth, val_rows)


@pytest.fixture(scope="module")
def vectors(digits, small_run):
    """The features of each photo by its path, as `kerastk.embed` finds them."""
    found = kerastk.embed(kerastk.Finetune(data=str(digits), weights=str(small_run.path), cache="off", threads=2))
    return dict(zip(found.paths, found.vectors, strict=True))


def paths(run, split):
    return [file["path"] for file in run.data["files"] if file["split"] == split]


def test_the_saved_model_answers_as_the_regression_on_the_features(solved, vectors, digits):
    names = paths(solved.run, "test")
    seen = np.stack([vectors[name] for name in names])
    expected = solved.head.estimator.predict_proba((seen - solved.head.mean) / solved.head.deviation)
    predictor = kerastk.load(solved.run)
    head = keras.Sequential([predictor.model.get_layer("head"), keras.layers.Softmax()])
    np.testing.assert_allclose(np.asarray(head(seen)), expected, atol=1e-5)
    # From the photo on, the network that is saved rounds in another order than the one that found the features.
    found = predictor.scores(np.stack([predictor.pixels(digits / name) for name in names]))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_solver_sees_each_training_photo_as_it_is_and_mirrored(solved, vectors, small_run, digits):
    names = paths(solved.run, "train")
    assert solved.rows.shape == (2 * len(names), 256)
    assert solved.truth.tolist() == 2 * [int(name.split("/")[0]) for name in names]
    np.testing.assert_allclose(solved.rows[: len(names)], [vectors[name] for name in names], atol=1e-5)
    predictor = kerastk.load(small_run)
    base = keras.Model(predictor.model.input, predictor.model.get_layer("head_dropout").input)
    mirrored = np.stack([predictor.pixels(digits / name)[:, ::-1] for name in names])
    np.testing.assert_allclose(solved.rows[len(names) :], np.asarray(base(mirrored)), atol=1e-3)
    np.testing.assert_allclose(solved.val_rows, [vectors[name] for name in paths(solved.run, "val")], atol=1e-5)


def test_without_mirroring_in_the_augmentation_no_mirrored_photo_is_solved_for(
    digits, small_run, tmp_path, monkeypatch
):
    class Seen(Exception):
        pass

    def stop(rows, truth, val_rows, val_truth, balanced):
        raise Seen(len(rows), len(truth), len(val_rows), len(val_truth))

    monkeypatch.setitem(probe.SOLVERS, "logistic", stop)
    with pytest.raises(Seen) as seen:
        kerastk.train(recipe(digits, small_run, tmp_path, augment="none"), show=False)
    assert seen.value.args == (112, 112, 24, 24)


def events(run, split):
    return EventAccumulator(str(run.events / split), size_guidance={"tensors": 0, "images": 0}).Reload()


def values_of(accumulator, tag):
    import tensorflow

    return {e.step: float(tensorflow.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)}


def test_a_solved_run_is_told_by_its_log_metrics_and_events(solved):
    (row,) = solved.run.log
    assert (row["phase"], row["epoch"], float(row["learning_rate"])) == ("probe", "0", 0)
    metrics = solved.run.metrics
    assert (metrics["best"]["phase"], metrics["best"]["epoch"]) == ("probe", 0)
    for found in (metrics["best"]["val_cross_entropy"], float(row["val_cross_entropy"])):
        assert found == pytest.approx(metrics["validation"]["cross_entropy"], abs=1e-4)
    assert float(row["val_accuracy"]) == metrics["validation"]["accuracy"]
    judged = classification(solved.truth, solved.head.probabilities(solved.rows), list("0123"))
    assert float(row["accuracy"]) == pytest.approx(judged["accuracy"])
    assert float(row["cross_entropy"]) == pytest.approx(judged["cross_entropy"])
    for split, prefix in (("train", ""), ("validation", "val_")):
        for tag in ("accuracy", "cross_entropy"):
            assert values_of(events(solved.run, split), tag) == {0: pytest.approx(float(row[prefix + tag]))}
    environment = json.loads(solved.run.environment_json.read_text())
    assert environment["trainable_parameters"] == {"probe": 256 * 4 + 4}


def test_the_recipe_of_a_solved_run_gives_it_again(solved, tmp_path):
    again = kerastk.train(dataclasses.replace(solved.run.recipe, runs=str(tmp_path)), show=False)
    assert again.recipe == dataclasses.replace(solved.run.recipe, runs=str(tmp_path))
    one, other = (list(csv.DictReader(run.predictions_csv.open())) for run in (solved.run, again))
    assert [row["prediction"] for row in one] == [row["prediction"] for row in other]
    np.testing.assert_allclose(*([float(row["probability"]) for row in rows] for rows in (one, other)), atol=1e-5)


def test_fine_tuning_that_makes_it_worse_is_thrown_away(digits, small_run, tmp_path, capsys):
    absurd = {"unfreeze": 1, "epochs": 2, "learning_rate": 10.0, "warmup_epochs": 0.0, "layer_decay": 0.75}
    run = kerastk.train(recipe(digits, small_run, tmp_path, **absurd))
    said = capsys.readouterr().out
    assert [(row["phase"], row["epoch"]) for row in run.log] == [("probe", "0"), ("finetune", "1"), ("finetune", "2")]
    first, *others = (float(row["val_cross_entropy"]) for row in run.log)
    assert first < min(others)
    assert float(run.log[1]["learning_rate"]) == 10.0
    assert (run.metrics["best"]["epoch"], run.metrics["best"]["phase"]) == (0, "probe")
    assert run.metrics["validation"]["cross_entropy"] == pytest.approx(first, abs=1e-4)
    assert "best     the probe" in said
    # What is saved is the base as it was.
    before, after = (keras.saving.load_model(each.model_keras) for each in (small_run, run))
    assert not np.array_equal(before.get_layer("head").kernel, after.get_layer("head").kernel)
    for weight, other in zip(before.weights[:-2], after.weights[:-2], strict=True):
        assert np.array_equal(weight, other), weight.path
    # The curves begin at the probe and go on by batches.
    assert list(values_of(events(run, "validation"), "cross_entropy")) == [0, 4, 8]


def test_a_head_too_large_to_be_solved_is_trained_in_minibatches(digits, small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probe, "WORK", 1)
    run = kerastk.train(recipe(digits, small_run, tmp_path))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "note the head is trained in minibatches, not solved: 224 photos and views in 4 classes would take the solver "
        "too long" in said
    )
    written = tomllib.loads(run.recipe_toml.read_text())
    assert (written["probe"], written["head_epochs"]) == ("train", 20)
    assert {row["phase"] for row in run.log} == {"head"}
    assert run.metrics["best"]["epoch"] >= 1
    # Only the machine has no such way out; the nearest neighbours need none.
    with pytest.raises(RecipeError, match=r"^head svm: 224 photos and views in 4 classes .*; use head dense[^\n]*$"):
        kerastk.train(recipe(digits, small_run, tmp_path / "svm", head="svm"))
    assert not (tmp_path / "svm").exists()
    assert plan(recipe(digits, small_run, tmp_path, head="knn"), screen=Screen(show=False)).recipe.head == "knn"


def test_without_a_probe_the_first_phase_is_the_main_one(digits, small_run, tmp_path):
    values = {"unfreeze": 1, "probe": "none", "epochs": 1, "learning_rate": 1e-6}
    run = kerastk.train(recipe(digits, small_run, tmp_path, **values), show=False)
    assert [(row["phase"], row["epoch"]) for row in run.log] == [("finetune", "1")]
    # With the same classes it goes on from the earlier run's head.
    before, after = (keras.saving.load_model(each.model_keras).get_layer("head").kernel for each in (small_run, run))
    assert np.corrcoef(np.ravel(before), np.ravel(after))[0, 1] > 0.999
