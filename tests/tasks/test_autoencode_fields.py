"""Every field of an autoencoder's recipe does something, as `tests/training/test_fields.py` has it for photos."""

import dataclasses
import json

import numpy as np
import pytest

import kerastk
from tests.training.test_fields import tags

SHORT = {
    "data": "DIGITS",
    "latent": 4,
    "kind": "dense",
    "widths": "16",
    "epochs": 2,
    "batch_size": 64,
    "deterministic": True,
}
CONV = {**SHORT, "kind": "conv", "widths": "6"}
PHOTOS = {**CONV, "data": "PHOTOS"}
VARIATIONAL = {**SHORT, "variational": True}
MACHINES = {**SHORT, "pretrain": "rbm", "rbm_epochs": 2}
STOPPING = {**SHORT, "epochs": 5, "learning_rate": 1e-9}

# Another value, and what it is another value beside: both runs end with other figures.
CHANGES = {
    "split": ("60/20/20", SHORT),
    "split_seed": (1, SHORT),
    "normal": ("3,4", SHORT),
    "false_alarms": (0.2, SHORT),
    "label_column": ("kind", {**SHORT, "data": "TABLE"}),
    "image_size": (12, {**PHOTOS, "resize": "crop"}),
    "resize": ("stretch", {**PHOTOS, "data": "WIDE", "resize": "crop"}),
    "augment": ("strong", PHOTOS),
    "kind": ("conv", {**SHORT, "widths": "16"}),
    "latent": (6, SHORT),
    "widths": ("24", SHORT),
    "activation": ("relu", SHORT),
    "upsample": ("subpixel", CONV),
    "loss": ("mae", SHORT),
    "noise": ("gaussian:0.3", SHORT),
    "masked": (0.5, CONV),
    "patch": (4, {**CONV, "masked": 0.5}),
    "sparsity": ("l1:0.01", SHORT),
    "contraction": (0.1, SHORT),
    "variational": (True, {**SHORT, "loss": "bce"}),
    "beta": (10.0, VARIATIONAL),
    "free_bits": (2.0, VARIATIONAL),
    "binarise": (True, VARIATIONAL),
    "pretrain": ("rbm", {**SHORT, "activation": "sigmoid", "loss": "bce"}),
    "rbm_epochs": (1, MACHINES),
    "rbm_steps": (3, MACHINES),
    "rbm_learning_rate": (0.01, MACHINES),
    "rbm_momentum": (0.0, MACHINES),
    "rbm_weight_decay": (0.1, MACHINES),
    "epochs": (1, SHORT),
    "batch_size": (32, SHORT),
    "learning_rate": (1e-2, SHORT),
    "schedule": ("constant", SHORT),
    "warmup_epochs": (1.5, SHORT),
    "optimizer": ("sgd", SHORT),
    "momentum": (0.5, {**SHORT, "optimizer": "sgd"}),
    "nesterov": (True, {**SHORT, "optimizer": "sgd"}),
    "accumulate": (2, SHORT),
    "ema": (0.9, SHORT),
    "weight_decay": (1.0, SHORT),
    "clipnorm": (1e-4, {**SHORT, "optimizer": "sgd"}),
    "l1": (1e-3, SHORT),
    "l2": (1e-2, SHORT),
    "patience": (1, STOPPING),
    "min_delta": (10.0, {**SHORT, "epochs": 4, "patience": 1}),
    "start_from_epoch": (2, {**SHORT, "epochs": 5, "patience": 1, "min_delta": 10.0}),
    "time": ("1s", {**SHORT, "epochs": 200}),
    "precision": ("bfloat16", SHORT),
    "seed": (1, SHORT),
}
# What shows elsewhere than in the figures.
SHOWS = {
    "data": ("ROWS", {name: each for name, each in SHORT.items() if name != "data"} | {"data": "DIGITS"},
             lambda run: run.labels["items"] == "rows"),
    "name": ("my run", SHORT, lambda run: run.path.name == "my run"),
    "runs": ("ELSEWHERE", SHORT, lambda run: run.path.parent.name == "elsewhere"),
    "histograms": (True, SHORT, lambda run: any("kernel" in tag for tag in tags(run))),
    "gradient_norms": (True, SHORT, lambda run: "gradient_norm/all" in tags(run)),
    "profile": ("2:3", SHORT, lambda run: any(run.events.rglob("*.xplane.pb"))),
    "keep_last": (True, SHORT, lambda run: run.last_keras.exists()),
    "device": ("cpu", SHORT, lambda run: run.environment["device"].startswith("cpu")),
}  # fmt: skip
# Parts of an epoch and a loss that is no number are in tests/faults; the others make no other run, but refuse some, or
# take other time. `features` needs pretrained weights: tests/test_real_data.py.
TESTED_ELSEWHERE = {"deterministic", "epoch_parts", "features", "max_bad", "on_nan", "strict", "threads"}


def test_no_field_is_forgotten():
    assert {*CHANGES, *SHOWS, *TESTED_ELSEWHERE} == {field.name for field in dataclasses.fields(kerastk.Autoencode)}


@pytest.fixture(scope="module")
def run_with(digits, tmp_path_factory):
    """A function that trains with some fields, once for each."""
    from PIL import Image
    from sklearn.datasets import load_digits

    work, made, loaded = tmp_path_factory.mktemp("fields"), {}, load_digits()
    np.savez(work / "digits.npz", x=(loaded.images[:400] * 15.9).astype(np.uint8), y=loaded.target[:400])
    rows = loaded.data[:400][:, loaded.data[:400].std(axis=0) > 0.5]
    np.save(work / "rows.npy", rows.astype(np.float32))
    head = ",".join(["kind", *(f"c{number}" for number in range(8))])
    lines = [
        ",".join(f"{each:g}" for each in (label, *row[:8])) for label, row in zip(loaded.target, rows, strict=False)
    ]
    (work / "table.csv").write_text("\n".join([head, *lines]) + "\n")
    for number, path in enumerate(sorted(digits.glob("*/*.png"))):
        photo = Image.open(path)
        target = work / "wide" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        photo.resize((16, 12 + number % 3)).save(target)
    stands_for = {
        "DIGITS": work / "digits.npz", "ROWS": work / "rows.npy", "TABLE": work / "table.csv", "PHOTOS": digits,
        "WIDE": work / "wide", "ELSEWHERE": work / "elsewhere",
    }  # fmt: skip

    def trained(**fields):
        key = json.dumps(fields, sort_keys=True)
        if key not in made:
            given = {name: str(stands_for.get(value, value)) if isinstance(value, str) else value
                     for name, value in {"runs": str(work / "runs"), **fields}.items()}  # fmt: skip
            made[key] = kerastk.train(kerastk.Autoencode(**given), show=False)
        return made[key]

    return trained


def figures(run):
    """What a run has learned: the log without its times, and the scores of the test items."""
    timings = ("seconds", "photos_per_second", "rows_per_second", "wait_share")
    rows = [{key: value for key, value in row.items() if key not in timings} for row in run.log]
    return rows, run.predictions_csv.read_text(encoding="utf-8"), run.labels["shape"], run.metrics["anomaly"]


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
