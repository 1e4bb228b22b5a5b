"""Every field of a `Classify` recipe does something; those that it shares are tested with `Finetune`, too."""

import dataclasses

import pytest

from kerastk.recipe import Classify, Finetune

BASE = {"epochs": 1}
# Another value, and what it is another value beside: both runs end with other figures.
CHANGES = {
    "net": ("lenet5", {**BASE, "image_size": 20}),
    "members": (2, BASE),
    "activation": ("relu", BASE),
    "normalisation": ("layer", BASE),
    "pooling": ("average", BASE),
    "initialiser": ("normal", BASE),
    "dropout": (0.5, BASE),
    "image_size": (16, BASE),
    "augment": ("shift-pad", BASE),
    "classes": ("0,1,2", BASE),
    "epochs": (2, BASE),
    "batch_size": (16, BASE),
    "learning_rate": (1e-3, BASE),
    "warmup_epochs": (0.0, BASE),
    # Nothing counts as better, so this one stops early; the best model may be of the same epoch.
    "patience": (1, {"epochs": 4, "min_delta": 10.0}),
    "split": ("60/40", BASE),
    "mixup": (0.4, BASE),
    "balance": ("sample", BASE),
    "label_smoothing": (0.4, BASE),
}
# `data` and `name` make no other figures.
OWN = {field.name for field in dataclasses.fields(Classify)} - {field.name for field in dataclasses.fields(Finetune)}


def test_no_field_of_its_own_is_forgotten():
    assert {*CHANGES} >= OWN


@pytest.mark.slow
@pytest.mark.parametrize("field", CHANGES)
def test_another_value_gives_another_run(field, classified):
    value, others = CHANGES[field]
    one, other = classified(**others), classified(**{**others, field: value})
    if field == "patience":
        assert len(other.log) < len(one.log) == others["epochs"]
    else:
        assert one.predictions_csv.read_text() != other.predictions_csv.read_text()
    assert getattr(other.recipe, field) == value
