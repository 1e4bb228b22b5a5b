"""A classifier that starts from an autoencoder's encoder."""

import keras
import numpy as np
import pytest

import kerastk
from kerastk.errors import RecipeError, RunError
from kerastk.tasks import finetune

TUNED = {"threads": 2, "augment": "none", "batch_size": 16}


@pytest.fixture(scope="module")
def encoder_run(digits, tmp_path_factory):
    """An autoencoder of the digits' photos, of 8 pixels a side."""
    recipe = kerastk.Autoencode(
        data=str(digits), latent=12, widths="8,16", epochs=12, batch_size=16, learning_rate=3e-3,
        runs=str(tmp_path_factory.mktemp("encoders")),
    )  # fmt: skip
    return kerastk.train(recipe, show=False)


@pytest.fixture(scope="module")
def tuned(encoder_run, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    recipe = kerastk.Finetune(
        data=str(digits), init_from=str(encoder_run.path), epochs=3, unfreeze=1, runs=str(folder), **TUNED
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(folder / "cache"))
        return kerastk.train(recipe, show=False)


def test_the_classifier_begins_with_the_encoders_weights(encoder_run, digits):
    recipe = kerastk.Finetune(data=str(digits), init_from=str(encoder_run.path))
    model = kerastk.build(recipe)
    encoder = keras.saving.load_model(encoder_run.encoder_keras, compile=False)
    photos = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    code = keras.Model(model.input, model.get_layer("head_dropout").input).predict_on_batch(photos)
    np.testing.assert_allclose(code, encoder.predict_on_batch(photos), rtol=1e-5, atol=1e-6)
    assert model.output.shape == (None, 4)


def test_it_solves_the_head_on_codes_then_trains_the_top(tuned):
    assert [row["phase"] for row in tuned.log] == ["probe", "finetune", "finetune", "finetune"]
    assert (tuned.recipe.base, tuned.recipe.image_size) == ("encoder", 8)
    # Four digits by twelve numbers that were learned without labels.
    assert float(tuned.log[0]["val_accuracy"]) > 0.6
    assert tuned.metrics["test"]["accuracy"] > 0.6


def test_it_answers_is_reported_and_can_be_gone_on_with(tuned, digits, tmp_path):
    label, probability = kerastk.load(tuned.path)(digits / "1" / "3.png")
    assert label in "0123"
    assert 0.25 <= probability <= 1
    assert "encoder" in tuned.report_html.read_text(encoding="utf-8")
    again = kerastk.Finetune(data=str(digits), weights=str(tuned.path), runs=str(tmp_path), **TUNED)
    assert finetune.settle(again).base == "encoder"
    assert kerastk.build(again).output.shape == (None, 4)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"weights": "none"}, "init_from brings its weights along"),
        ({"base": "resnet50"}, "init_from is a network of its own; leave base out"),
        ({"image_size": 32}, "image_size must be that of .*, 8; got 32"),
    ],
)
def test_what_contradicts_the_encoder_is_refused(fields, reason, encoder_run):
    with pytest.raises(RecipeError, match=reason):
        finetune.settle(kerastk.Finetune(data="photos", init_from=str(encoder_run.path), **fields))


def test_a_base_called_encoder_needs_a_run():
    with pytest.raises(RecipeError, match="--init-from RUN"):
        finetune.settle(kerastk.Finetune(data="photos", base="encoder"))


def test_a_run_of_another_task_has_no_encoder(small_run):
    with pytest.raises(RunError, match="does not describe an autoencoder"):
        finetune.settle(kerastk.Finetune(data="photos", init_from=str(small_run.path)))


def test_an_encoder_of_arrays_takes_no_photos(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    recipe = kerastk.Autoencode(latent=4, epochs=1, kind="dense", widths="8", runs=str(tmp_path))
    run = kerastk.train(recipe, data=values, show=False)
    with pytest.raises(RunError, match="no encoder of photos: it was trained on images of an array"):
        finetune.settle(kerastk.Finetune(data="photos", init_from=str(run.path)))
