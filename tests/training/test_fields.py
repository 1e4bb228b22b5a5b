"""Every field of a recipe does something: a run with another value of it is another run."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kerastk
from kerastk.datasets.images import to_png
from kerastk.recipe import Finetune
from tests.conftest import SMALL

FRESH = {**SMALL, "epochs": 2, "learning_rate": 3e-3, "batch_size": 16}
# From an earlier run's weights, what is trained over cached activations.
TUNED = {"weights": "RUN", "epochs": 2, "learning_rate": 1e-3, "batch_size": 16, "unfreeze": 1, "augment": "strong"}
TRAINED_HEAD = {**TUNED, "epochs": 1, "probe": "train", "head_epochs": 1}

# Another value, and what it is another value beside: both runs end with other figures.
CHANGES = {
    "split": ("60/20/20", FRESH),
    "split_seed": (1, FRESH),
    "epochs": (1, FRESH),
    "batch_size": (8, FRESH),
    "learning_rate": (1e-3, FRESH),
    "schedule": ("constant", FRESH),
    "warmup_epochs": (1.0, FRESH),
    "optimizer": ("sgd", FRESH),
    "momentum": (0.5, {**FRESH, "optimizer": "sgd"}),
    "nesterov": (True, {**FRESH, "optimizer": "sgd"}),
    "accumulate": (2, FRESH),
    "ema": (0.9, FRESH),
    "weight_decay": (1.0, FRESH),
    "clipnorm": (0.01, FRESH),
    "l1": (1e-3, FRESH),
    "l2": (1e-2, FRESH),
    "patience": (1, {**FRESH, "epochs": 5, "learning_rate": 1e-9}),
    "min_delta": (10.0, {**FRESH, "epochs": 4, "patience": 1}),
    "start_from_epoch": (2, {**FRESH, "epochs": 5, "patience": 1, "min_delta": 10.0}),
    "time": ("1s", {**FRESH, "epochs": 3}),
    "precision": ("bfloat16", FRESH),
    "seed": (1, FRESH),
    "base": ("mobilenet_v2_0.35", FRESH),
    "weights": ("none", {**{name: value for name, value in TUNED.items() if name != "unfreeze"}, "image_size": 32}),
    "unfreeze": (2, TUNED),
    "dropout": (0.7, FRESH),
    "head": ("svm", {"weights": "RUN", "unfreeze": "head"}),
    "image_size": (40, FRESH),
    "resize": ("stretch", {**FRESH, "data": "WIDE"}),
    "augment": ("strong", FRESH),
    "probe": ("none", TUNED),
    "head_epochs": (2, TRAINED_HEAD),
    "head_learning_rate": (1e-4, TRAINED_HEAD),
    "layer_decay": (0.5, TUNED),
    "classes": ("0,1,2", FRESH),
    "balance": ("sample", FRESH),
    "focal_gamma": (0.5, {**FRESH, "balance": "focal"}),
    "manifold_mixup": (0.0, TUNED),
    "mixup": (0.4, FRESH),
    "cutmix": (1.0, FRESH),
    "label_smoothing": (0.3, FRESH),
    "cache_dtype": ("bfloat16", TUNED),
    "views": (1, TUNED),
}  # fmt: skip


def tags(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.events / "train")).Reload()
    return set(events.Tags()["tensors"])


# What shows elsewhere than in the figures.
SHOWS = {
    "data": ("COPY", FRESH, lambda run: run.recipe.data.endswith("copy")),
    "name": ("my run", FRESH, lambda run: run.path.name == "my run"),
    "runs": ("ELSEWHERE", FRESH, lambda run: run.path.parent.name == "elsewhere"),
    "histograms": (True, FRESH, lambda run: any("kernel" in tag for tag in tags(run))),
    "gradient_norms": (True, FRESH, lambda run: "gradient_norm/all" in tags(run)),
    "profile": ("2:3", FRESH, lambda run: any(run.events.rglob("*.xplane.pb"))),
    "keep_last": (True, FRESH, lambda run: run.last_keras.exists()),
    "device": ("cpu", FRESH, lambda run: run.environment["device"].startswith("cpu")),
    "cache": ("FOLDER", TUNED, lambda run: any(Path(run.recipe.cache).rglob("index.bin"))),
    "cache_size": ("1MB", {**TUNED, "views": 1}, lambda run: run.recipe.cache_size == "1MB"),
    "max_bad": (0.5, {**FRESH, "data": "DAMAGED"}, lambda run: len(run.data["set_aside"]) == 20),
}
# How many threads read changes nothing, and that is tested where they read, as is that equal seeds give equal runs;
# parts of an epoch, and a loss that is no number, are in tests/faults; `strict` makes no other run, but refuses some;
# `init_from` needs the run of an autoencoder (tests/tasks/test_init_from.py).
TESTED_ELSEWHERE = {"threads", "deterministic", "epoch_parts", "init_from", "on_nan", "strict"}


def test_no_field_is_forgotten():
    assert {*CHANGES, *SHOWS, *TESTED_ELSEWHERE} == {field.name for field in dataclasses.fields(Finetune)}


@pytest.fixture(scope="module")
def uneven(digits, tmp_path_factory):
    """Digits of which the first class has more than three times as many as the others."""
    folder = tmp_path_factory.mktemp("uneven") / "uneven"
    for label, count in enumerate((40, 12, 12, 12)):
        (folder / str(label)).mkdir(parents=True)
        for number in range(count):
            name = f"{label}/{number}.png"
            (folder / name).write_bytes((digits / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def run_with(uneven, small_run, tmp_path_factory):
    """A function that trains with some fields, once for each."""
    work, made = tmp_path_factory.mktemp("fields"), {}
    for name in ("copy", "wide", "damaged"):
        shutil.copytree(uneven, work / name)
    for path in (work / "wide").rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        path.write_bytes(to_png(np.concatenate([pixels, 255 - pixels], axis=1)))
    for number in range(20):
        (work / "damaged" / "0" / f"{number}.png").write_bytes(b"no photo")
    stands_for = {
        "RUN": small_run.path, "COPY": work / "copy", "WIDE": work / "wide", "DAMAGED": work / "damaged",
        "ELSEWHERE": work / "elsewhere", "FOLDER": work / "runs" / "folder",
    }  # fmt: skip

    def trained(**fields):
        key = json.dumps(fields, sort_keys=True)
        if key not in made:
            common = {"data": str(uneven), "runs": str(work / "runs"), "max_bad": 0.9, "deterministic": True}
            given = {name: str(stands_for.get(value, value)) if isinstance(value, str) else value
                     for name, value in {**common, **fields}.items()}  # fmt: skip
            made[key] = kerastk.train(Finetune(**given), show=False)
        return made[key]

    return trained


def figures(run):
    """What a run has learned: the log without its times, and the test photos' probabilities."""
    timings = ("seconds", "photos_per_second", "wait_share")
    rows = [{key: value for key, value in row.items() if key not in timings} for row in run.log]
    return rows, run.predictions_csv.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("field", CHANGES)
def test_another_value_gives_another_run(field, run_with):
    value, others = CHANGES[field]
    others = {name: other for name, other in others.items() if name != field}
    beside = {**others, **({field: CHANGES[field][1][field]} if field in CHANGES[field][1] else {})}
    assert figures(run_with(**{**others, field: value})) != figures(run_with(**beside))


@pytest.mark.slow
@pytest.mark.parametrize("field", SHOWS)
def test_a_value_shows(field, run_with):
    value, others, shows = SHOWS[field]
    assert shows(run_with(**{**others, field: value}))
    if field not in ("max_bad", "cache_size", "device"):
        assert not shows(run_with(**others))


@pytest.mark.slow
def test_a_penalty_is_part_of_the_loss_and_shrinks_the_kernels(run_with):
    rows, plain = (run_with(**FRESH, **fields).log for fields in ({"l2": 1.0, "weight_decay": 0.0}, {}))
    assert float(rows[0]["loss"]) > 10 * float(plain[0]["loss"])
    assert float(rows[-1]["loss"]) < 0.95 * float(rows[0]["loss"])
    # What is judged is not the penalty.
    assert float(rows[0]["val_cross_entropy"]) < 5
