import csv
import dataclasses
import json

import keras
import numpy as np
import pytest

import kerastk
from kerastk.datasets.buckets import SentenceRows
from kerastk.datasets.schemes import faults, spans
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.sequences import open_sentences
from kerastk.errors import DataError, RecipeError, RunError
from kerastk.evaluation.spans import tagging
from kerastk.networks import saved
from kerastk.tasks.tag import load_model
from kerastk.training import lr_find
from kerastk.training.tagging import answers
from tests.conftest import SMALL_TAGGER

# Each line a word, its part of speech and its name's tag; the first sentence is too short for any bucket but the first.
LINES = """\
Ana NOUN B-PER
sleeps VERB O

The DET O
river NOUN O
Po NOUN B-LOC
floods VERB O
Turin NOUN B-LOC
. PUNCT O

Bo NOUN B-PER
Li NOUN I-PER
left VERB O
Rome NOUN B-LOC
"""


def columns(run):
    """The sentences of predictions.conll: words, true tags, answers."""
    found = [[]]
    for line in run.predictions_conll.read_text(encoding="utf-8").splitlines():
        if line:
            found[-1].append(line.split("\t"))
        else:
            found.append([])
    return [list(zip(*each, strict=True)) for each in found if each]


def small_file(tmp_path, copies=8, name="some.conll"):
    """A file of different short sentences with three columns."""
    text = "\n".join(LINES.replace("Po ", f"Po{chr(97 + number)} ").replace("left", f"left{number}")
                     .replace("sleeps", f"sleeps{number}") for number in range(copies))  # fmt: skip
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_run_folder_holds_all_that_a_run_of_photos_does(tagger_run):
    names = {path.name for path in tagger_run.path.iterdir()}
    assert names >= {
        "recipe.toml", "environment.json", "data.json", "labels.json", "vocabulary.json", "log.csv", "events",
        "model.keras", "metrics.json", "predictions.conll", "report.html",
    }  # fmt: skip
    recipe = tagger_run.recipe
    assert isinstance(recipe, kerastk.Tag)
    assert (recipe.scheme, recipe.split, recipe.optimizer) == ("iobes", "80/10/10", "adamw")
    assert tagger_run.complete
    assert not tagger_run.checkpoint.exists()
    rows = tagger_run.log
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    assert float(rows[0]["loss"]) > float(rows[-1]["loss"])
    assert all(float(row["words_per_second"]) > 0 for row in rows)


def test_it_learns_names_that_it_was_not_shown(tagger_run):
    figures = tagger_run.metrics["test"]
    # Every word O would have an F1 of 0; so few sentences do not bear more.
    assert figures["f1"] > 0.35
    assert figures["seen"]["unseen"]["f1"] > 0.2


def test_the_best_epoch_is_kept_and_measured(tagger_run):
    metrics, rows = tagger_run.metrics, tagger_run.log
    best = min(rows, key=lambda row: float(row["val_error"]))
    assert metrics["best"]["epoch"] == int(best["epoch"])
    assert metrics["best"]["val_error"] == pytest.approx(float(best["val_error"]))
    assert metrics["validation"]["f1"] == pytest.approx(float(best["val_f1"]), abs=1e-9)
    assert metrics["validation"]["token_accuracy"] == pytest.approx(float(best["val_accuracy"]), abs=1e-9)


def test_predictions_are_in_the_spelling_of_the_file_and_score_what_metrics_say(tagger_run, names):
    sentences = columns(tagger_run)
    words, truth, guess = zip(*sentences, strict=True)
    given = {each.tokens: each.tags for each in open_sentences(names).sentences}
    assert all(given[one] == other for one, other in zip(words, truth, strict=True))
    assert not [fault for each in guess for fault in faults(each, "iob2")]
    figures = tagging(truth, guess, "iob2")
    assert figures["f1"] == pytest.approx(tagger_run.metrics["test"]["f1"])
    assert figures["sentences"] == len([row for row in tagger_run.data["files"] if row["split"] == "test"])


def test_splits_are_by_content_and_a_copy_never_stands_on_two_sides(tmp_path):
    path = small_file(tmp_path)
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" + open(path, encoding="utf-8").read())
    run = kerastk.train(kerastk.Tag(data=path, epochs=1, runs=str(tmp_path), **SMALL_TAGGER), show=False)
    sides = {}
    for row in run.data["files"]:
        sides.setdefault(row["sha256"], set()).add(row["split"])
    assert all(len(each) == 1 for each in sides.values())
    assert len(run.data["files"]) == 2 * len(sides)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """Parts of speech by a softmax, without characters and casing, from files of their own."""
    folder = tmp_path_factory.mktemp("plain")
    train, test = small_file(folder), small_file(folder, 1, "test.conll")
    recipe = kerastk.Tag(
        data=train, dev=train, test=test, columns="word,tag,-", characters="none", casing=False,
        output="softmax", cell="gru", epochs=30, word_dropout=0.0, runs=str(folder), **SMALL_TAGGER,
    )  # fmt: skip
    return kerastk.train(recipe, show=False)


def test_plain_tags_are_judged_by_their_accuracy(plain_run):
    recipe, metrics = plain_run.recipe, plain_run.metrics
    assert (recipe.scheme, recipe.split) == (None, None)
    assert metrics["test"]["token_accuracy"] == 1
    assert "f1" not in metrics["test"]
    assert set(metrics["test"]["labels"]) == {"DET", "NOUN", "PUNCT", "VERB"}
    assert "val_f1" not in plain_run.log[0]
    tagger = kerastk.load(plain_run)
    assert tagger(["Ana", "sleeps0"]) == ["NOUN", "VERB"]
    assert [(span.label, span.text) for span in tagger("The river Poa floods Turin.")] == [
        ("DET", "The"), ("NOUN", "river"), ("NOUN", "Poa"), ("VERB", "floods"), ("NOUN", "Turin"),
        ("PUNCT", "."),
    ]  # fmt: skip


def test_a_loaded_model_answers_as_the_trained_one_did(tagger_run):
    model, vocabulary = load_model(tagger_run)
    again, _ = load_model(tagger_run)
    asked = [Sentence(("Ana", "Lopes", "lives", "in", "Porto")), Sentence(("Yes",))]
    inputs, _ = SentenceRows(asked, vocabulary, batch_words=50, training=False, lengths=[5]).batch(0, 0)
    one, other = model.predict_on_batch(inputs), again.predict_on_batch(inputs)
    np.testing.assert_array_equal(one["tags"], other["tags"])
    np.testing.assert_array_equal(one["probabilities"], other["probabilities"])
    assert one["tags"][1, 1:].tolist() == [-1] * 4
    np.testing.assert_allclose(one["probabilities"][0].sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_equal_seeds_give_equal_runs(names, tagger_run, tmp_path):
    again = kerastk.train(dataclasses.replace(tagger_run.recipe, name=None, runs=str(tmp_path)), show=False)
    assert again.predictions_conll.read_bytes() == tagger_run.predictions_conll.read_bytes()
    for one, other in zip(*(saved.load(run.model_keras).weights for run in (again, tagger_run)), strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


@pytest.mark.parametrize("output", ["crf", pytest.param("softmax", marks=pytest.mark.slow)])
def test_mixed_precision_trains_and_saves_float32(names, tmp_path, output):
    recipe = kerastk.Tag(
        data=names, output=output, precision="bfloat16", epochs=1, runs=str(tmp_path), **SMALL_TAGGER
    )  # fmt: skip
    run = kerastk.train(recipe, show=False)
    assert np.isfinite(float(run.log[0]["loss"]))
    model, _ = load_model(run)
    kinds = {each.dtype_policy.name for each in model._flatten_layers() if isinstance(each, keras.layers.Layer)}
    assert kinds == {"float32"}


@pytest.mark.slow
def test_a_crf_never_breaks_the_scheme(names, tmp_path):
    """However little it has learned."""
    recipe = kerastk.Tag(data=names, epochs=1, runs=str(tmp_path), **(SMALL_TAGGER | {"learning_rate": 0.3}))
    run = kerastk.train(recipe, show=False)
    model, _ = load_model(run)
    data = kerastk.open_data(run.recipe)
    tags = [[data.classes[number] for number in each.tags] for each in answers(model, data.test)]
    assert not [fault for each in tags for fault in faults(each, "iobes")]


def test_vectors_come_from_a_file_and_may_stay_as_they_are(names, tmp_path):
    (tmp_path / "vectors.txt").write_text("the 1 2 3 4\nlives 0 0 1 0\nzebra 5 5 5 5\n")
    recipe = kerastk.Tag(
        data=names, vectors=str(tmp_path / "vectors.txt"), train_vectors=False, epochs=1, width=8, runs=str(tmp_path),
        batch_size=400,
    )  # fmt: skip
    run = kerastk.train(recipe, show=False)
    model, vocabulary = load_model(run)
    table = np.array(model.get_layer("word_vectors").embeddings)
    numbers = vocabulary.encode(["the", "lives", "zebra"])["words"]
    np.testing.assert_array_equal(table[numbers], [[1, 2, 3, 4], [0, 0, 1, 0], [5, 5, 5, 5]])
    assert run.recipe.word_size is None


def test_events_show_the_words_a_second_and_the_final_figures(tagger_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tagger_run.events / "train"), {"tensors": 0}).Reload()
    tags = read.Tags()["tensors"]
    assert {"words_per_second", "loss", "final/test_f1", "recipe/text_summary"} & set(tags) >= {
        "words_per_second", "final/test_f1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_vectors": True}, "train_vectors has no effect without vectors"),
        ({"vectors": "v.txt", "word_size": 50}, "word_size has no effect with vectors"),
        ({"dev": "a", "test": "b", "split": "80/20"}, "split has no effect where dev and test are files of their own"),
        ({"scheme": "iob3"}, "scheme must be one of"),
        ({"width": 0}, "width must be at least 1"),
        ({"epochs": 3, "warmup_epochs": 3.0}, "warmup_epochs must be below epochs"),
    ],
)
def test_what_would_not_be_used_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        kerastk.Tag(data="train.conll", **options)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("", "no sentence"),
        ("only\nwords\n\nand\nmore\n", "tag"),
        ("a O\nb O\n\nc O\n\nd O\n\ne O\n\nf O\n", "one tag only"),
    ],
)
def test_data_that_cannot_be_used_is_refused_with_a_reason(tmp_path, content, words):
    path = tmp_path / "data.conll"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=words) as refused:
        kerastk.train(kerastk.Tag(data=str(path), runs=str(tmp_path / "runs")), show=False)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_a_scheme_for_plain_tags_is_refused(tmp_path):
    recipe = kerastk.Tag(data=small_file(tmp_path), columns="word,tag,-", scheme="iobes", runs=str(tmp_path))
    with pytest.raises(DataError, match="the tags are plain"):
        kerastk.train(recipe, show=False)


def test_files_of_another_run_are_refused(tagger_run, plain_run, tmp_path):
    import shutil

    mixed = tmp_path / "mixed"
    shutil.copytree(tagger_run.path, mixed)
    shutil.copy(plain_run.vocabulary_json, mixed / "vocabulary.json")
    with pytest.raises(RunError, match="do not belong together"):
        kerastk.load(mixed)
    (mixed / "vocabulary.json").write_text(json.dumps({"format": 1, "words": "all"}))
    with pytest.raises(RunError):
        kerastk.load(mixed)


def test_a_resumed_run_goes_on_with_its_own_vocabulary(names, tmp_path):
    recipe = kerastk.Tag(data=names, epochs=2, name="again", runs=str(tmp_path), **SMALL_TAGGER)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kerastk.train(recipe, callbacks=[Stop()], show=False)
    text = open(names, encoding="utf-8").read() + "\nQuetzalcoatl\tB-PER\nwrote\tO\n"
    (tmp_path / "more.conll").write_text(text, encoding="utf-8")
    run = kerastk.resume(tmp_path / "again", data=tmp_path / "more.conll", allow_data_change=True, show=False)
    assert run.complete
    assert "quetzalcoatl" not in run.vocabulary["words"]


def test_build_and_open_data_serve_a_loop_of_ones_own(names):
    recipe = kerastk.Tag(data=names, **SMALL_TAGGER)
    model, data = kerastk.build(recipe), kerastk.open_data(recipe)
    epochs = [[inputs["words"] for inputs, _ in data.train] for _ in range(2)]
    assert len(epochs[0]) == len(data.train) > 1
    assert not all(np.array_equal(*pair) for pair in zip(*epochs, strict=True))
    inputs, tags = next(iter(data.val))
    answer = model.predict_on_batch(inputs)
    assert answer["probabilities"].shape == (*tags.shape, len(data.classes))
    facts = kerastk.check(names).facts["train"]
    assert sum(len(each.sentences) for each in (data.train, data.val, data.test)) == facts.sentences == 326


def test_the_log_is_a_table(tagger_run):
    with open(tagger_run.log_csv, encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == [
            "phase", "epoch", "seconds", "learning_rate", "words_per_second", "wait_share", "loss", "val_loss",
            "val_accuracy", "val_f1", "val_error",
        ]  # fmt: skip


def test_spans_of_truth_are_those_of_the_file(tagger_run):
    """Nothing is lost on the way from the file's scheme to the trained one and back."""
    for words, truth, _ in columns(tagger_run):
        assert len(words) == len(truth)
        assert spans(truth, "iob2") == spans(truth, "iob2", strict=True)


def test_a_learning_rate_is_found_for_a_tagger_too(names, tagger_run, tmp_path, monkeypatch):
    monkeypatch.setattr(lr_find, "STEPS", 40)
    options = SMALL_TAGGER | {"learning_rate": "auto", "epochs": 1, "batch_size": 120}
    recipe = kerastk.Tag(data=names, runs=str(tmp_path), **options)
    found = kerastk.find_learning_rate(recipe, show=False)
    assert 1e-6 < found.suggestion < 1
    # Each step's own loss, of a word: at a rate of almost nothing that of a tagger without a clue, in any batch.
    assert ((found.losses[:8] > 1) & (found.losses[:8] < np.log(len(tagger_run.labels["classes"])))).all()
    run = kerastk.train(recipe, show=False)
    assert run.recipe.learning_rate == found.suggestion
