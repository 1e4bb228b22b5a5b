"""Every field of a tagger's recipe does something, as `tests/training/test_fields.py` has it for photos."""

import dataclasses
import json
import random

import pytest

import kerastk
from tests.conftest import SMALL_TAGGER
from tests.training.test_fields import tags

SHORT = {**SMALL_TAGGER, "epochs": 2}
UNSIZED = {name: value for name, value in SHORT.items() if name != "word_size"}

# Another value, and what it is another value beside: both runs end with other figures.
CHANGES = {
    "dev": ("DEV", SHORT),
    "test": ("DEV", SHORT),
    "split": ("60/20/20", SHORT),
    "split_seed": (1, SHORT),
    "columns": ("word,-,tag", {**SHORT, "data": "COLUMNS", "columns": "word,tag,-"}),
    "tag_column": ("pos", {**SHORT, "data": "COLUMNS", "columns": "word,pos,tag"}),
    "scheme": ("iob2", SHORT),
    "max_length": (8, SHORT),
    "max_words": (5, SHORT),
    "min_count": (3, SHORT),
    "lower": (False, SHORT),
    "fold_digits": (False, SHORT),
    "vectors": ("VECTORS", {name: value for name, value in SHORT.items() if name != "word_size"}),
    "train_vectors": (
        False,
        {name: value for name, value in SHORT.items() if name != "word_size"} | {"vectors": "VECTORS"},
    ),
    "word_size": (8, SHORT),
    "characters": ("none", SHORT),
    "casing": (False, SHORT),
    "cell": ("gru", SHORT),
    "layers": (2, SHORT),
    "width": (8, SHORT),
    "output": ("softmax", SHORT),
    "dropout": (0.0, SHORT),
    "word_dropout": (0.0, SHORT),
    "epochs": (1, SHORT),
    "batch_size": (200, SHORT),
    "learning_rate": (1e-3, SHORT),
    "schedule": ("constant", SHORT),
    "warmup_epochs": (1.0, SHORT),
    "optimizer": ("sgd", SHORT),
    "momentum": (0.5, {**SHORT, "optimizer": "sgd"}),
    "nesterov": (True, {**SHORT, "optimizer": "sgd"}),
    "accumulate": (2, SHORT),
    "ema": (0.9, SHORT),
    "weight_decay": (1.0, SHORT),
    "clipnorm": (0.01, SHORT),
    "l1": (1e-3, SHORT),
    "l2": (1e-2, SHORT),
    "patience": (1, {**SHORT, "epochs": 5, "learning_rate": 1e-9}),
    # So many steps an epoch that the second one is better than the first.
    "min_delta": (10.0, {**SHORT, "epochs": 4, "patience": 1, "batch_size": 60}),
    "start_from_epoch": (2, {**SHORT, "epochs": 5, "patience": 1, "min_delta": 10.0}),
    "time": ("1s", {**SHORT, "epochs": 30}),
    "precision": ("bfloat16", SHORT),
    "seed": (1, SHORT),
}
# What shows elsewhere than in the figures.
SHOWS = {
    "data": ("COLUMNS", SHORT, lambda run: run.recipe.data.endswith("columns.conll")),
    "name": ("my run", SHORT, lambda run: run.path.name == "my run"),
    "runs": ("ELSEWHERE", SHORT, lambda run: run.path.parent.name == "elsewhere"),
    "histograms": (True, SHORT, lambda run: any("kernel" in tag for tag in tags(run))),
    "gradient_norms": (True, SHORT, lambda run: "gradient_norm/all" in tags(run)),
    "profile": ("2:3", SHORT, lambda run: any(run.events.rglob("*.xplane.pb"))),
    "keep_last": (True, SHORT, lambda run: run.last_keras.exists()),
    "device": ("cpu", SHORT, lambda run: run.environment["device"].startswith("cpu")),
}
# Parts of an epoch and a loss that is no number are in tests/faults; `strict` makes no other run, but refuses some.
TESTED_ELSEWHERE = {"deterministic", "epoch_parts", "on_nan", "strict"}


def test_no_field_is_forgotten():
    assert {*CHANGES, *SHOWS, *TESTED_ELSEWHERE} == {field.name for field in dataclasses.fields(kerastk.Tag)}


@pytest.fixture(scope="module")
def run_with(names, tmp_path_factory):
    """A function that trains with some fields, once for each."""
    work, made = tmp_path_factory.mktemp("fields"), {}
    draw = random.Random(1)
    with open(names, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    columns = [f"{row[0]}\t{draw.choice(('X', 'Y'))}\t{row[1]}" if len(row) == 2 else "" for row in rows]
    (work / "columns.conll").write_text("\n".join(columns) + "\n", encoding="utf-8")
    (work / "dev.conll").write_text("\n".join("\t".join(row) for row in rows[:600]) + "\n", encoding="utf-8")
    words = sorted({row[0] for row in rows if len(row) == 2})
    vectors = [f"{word} {' '.join(f'{draw.gauss(0, 1):.3f}' for _ in range(24))}" for word in words]
    (work / "vectors.txt").write_text("\n".join(vectors) + "\n", encoding="utf-8")
    stands_for = {
        "COLUMNS": work / "columns.conll", "DEV": work / "dev.conll", "VECTORS": work / "vectors.txt",
        "ELSEWHERE": work / "elsewhere",
    }  # fmt: skip

    def trained(**fields):
        key = json.dumps(fields, sort_keys=True)
        if key not in made:
            given = {name: str(stands_for.get(value, value)) if isinstance(value, str) else value
                     for name, value in {"data": names, "runs": str(work / "runs"), **fields}.items()}  # fmt: skip
            made[key] = kerastk.train(kerastk.Tag(**given), show=False)
        return made[key]

    return trained


def figures(run):
    """What a run has learned: the log without its times, and the test sentences' tags."""
    timings = ("seconds", "words_per_second", "wait_share")
    rows = [{key: value for key, value in row.items() if key not in timings} for row in run.log]
    return rows, run.predictions_conll.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("field", CHANGES)
def test_another_value_gives_another_run(field, run_with):
    value, others = CHANGES[field]
    assert figures(run_with(**{**others, field: value})) != figures(run_with(**others))


@pytest.mark.slow
@pytest.mark.parametrize("field", SHOWS)
def test_a_value_shows(field, run_with):
    value, others, shows = SHOWS[field]
    assert shows(run_with(**{**others, field: value}))
    if field != "device":
        assert not shows(run_with(**others))
