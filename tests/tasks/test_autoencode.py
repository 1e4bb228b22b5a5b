import csv
import json

import keras
import numpy as np
import pytest
from PIL import Image

import kerastk
from kerastk.errors import DataError, RecipeError
from kerastk.evaluation import reconstruction
from kerastk.networks.autoencoder import dense_pairs
from kerastk.recipe import Autoencode
from kerastk.tasks import autoencode

KINDS = {
    "dense": {"kind": "dense", "widths": "32"},
    "conv": {"kind": "conv", "widths": "6,8"},
    "transpose": {"widths": "6", "upsample": "transpose"},
    "subpixel": {"widths": "6", "upsample": "subpixel"},
    "denoising": {"kind": "dense", "noise": "gaussian:0.5"},
    "masked": {"widths": "6", "masked": 0.5, "patch": 2},
    "sparse": {"kind": "dense", "sparsity": "l1:0.001"},
    "sparse kl": {"kind": "dense", "sparsity": "kl:0.1"},
    "contractive": {"kind": "dense", "contraction": 0.001},
    "variational": {"kind": "dense", "variational": True, "binarise": True},
    "rbm": {"pretrain": "rbm", "rbm_epochs": 1, "widths": "24"},
    "rows": {"data": "ROWS", "widths": "16"},
}

# What others of these tests train, too.
QUICK = ("dense", "conv", "variational", "rbm", "rows")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Real digits as an array with labels, and as rows of numbers of different ranges."""
    from sklearn.datasets import load_digits

    folder, loaded = tmp_path_factory.mktemp("arrays"), load_digits()
    images = (loaded.images[:700] * 15.9).astype(np.uint8)
    np.savez(folder / "digits.npz", x=images, y=loaded.target[:700])
    kept = loaded.data.std(axis=0) > 0.5
    np.save(folder / "rows.npy", (loaded.data[:700, kept] * np.geomspace(1, 1000, kept.sum())).astype(np.float32))
    return {"DIGITS": str(folder / "digits.npz"), "ROWS": str(folder / "rows.npy"), "FOLDER": folder}


@pytest.fixture(scope="module")
def trained(sources, tmp_path_factory):
    """A function that trains with some fields, once for each."""
    runs, made = tmp_path_factory.mktemp("runs"), {}

    def run(**fields):
        key = json.dumps(fields, sort_keys=True)
        if key not in made:
            given = {"data": "DIGITS", "latent": 4, "epochs": 2, "deterministic": True, "batch_size": 64, **fields}
            given["data"] = sources.get(given["data"], given["data"])
            made[key] = kerastk.train(Autoencode(runs=str(runs), **given), show=False)
        return made[key]

    return run


@pytest.mark.parametrize(
    "kind", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in KINDS]
)
def test_each_kind_learns_and_its_model_answers_as_it_was_judged(kind, trained):
    run = trained(**KINDS[kind])
    rows, figures = run.log, run.metrics["test"]
    whole = [row for row in rows if row["phase"] == "train"]
    assert float(whole[-1]["val_loss"]) < float(whole[0]["val_loss"])
    model = keras.saving.load_model(run.model_keras, safe_mode=True, compile=False)
    data = kerastk.open_data(run.recipe)
    found = reconstruction.answers(model, reconstruction.items_of(data.test), autoencode.standard_of(data))
    np.testing.assert_allclose(found.errors.mean(), figures["error"], rtol=1e-5)
    with open(run.predictions_csv, newline="") as file:
        scores = [float(row["score"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found.errors, scores, rtol=1e-4)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


@pytest.mark.parametrize("kind", ["conv", "rows"])
def test_the_halves_are_kept_on_their_own(kind, trained):
    run = trained(**KINDS[kind])
    model, encode, decode = (
        keras.saving.load_model(path, safe_mode=True, compile=False)
        for path in (run.model_keras, run.encoder_keras, run.decoder_keras)
    )
    items = next(iter(kerastk.open_data(run.recipe).test))[0]
    whole = model.predict_on_batch(items)
    np.testing.assert_allclose(encode.predict_on_batch(items), whole["code"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decode.predict_on_batch(whole["code"]), whole["reconstruction"], rtol=1e-4, atol=1e-5)


def test_a_run_is_told_beside_principal_components_of_the_same_size(trained):
    run = trained(**KINDS["dense"])
    data = kerastk.open_data(run.recipe)
    from sklearn.decomposition import PCA

    train, test = (rows.values[rows.rows].reshape(len(rows.rows), -1) / 255 for rows in (data.train, data.test))
    known = PCA(4).fit(train)
    expected = np.square(known.inverse_transform(known.transform(test)) - test).sum(axis=1).mean()
    assert run.metrics["test"]["rivals"]["PCA"]["error"] == pytest.approx(expected, rel=1e-4)
    assert "logistic PCA" not in run.metrics["test"]["rivals"]
    assert "logistic PCA" in trained(**KINDS["variational"]).metrics["test"]["rivals"]


def test_the_threshold_is_set_on_validation_items(trained):
    run = trained(**KINDS["dense"], false_alarms=0.1)
    anomaly, data = run.metrics["anomaly"], kerastk.open_data(run.recipe)
    model = keras.saving.load_model(run.model_keras, compile=False)
    errors = reconstruction.answers(model, reconstruction.items_of(data.val), None).errors
    assert (errors > anomaly["threshold"]).mean() == pytest.approx(0.1, abs=0.02)
    assert (anomaly["false_alarms"], anomaly["calibrated_on"]) == (0.1, len(errors))


def test_other_classes_than_the_normal_ones_are_not_learned_and_found(trained):
    run = trained(kind="dense", widths="64", latent=6, normal="0,1", epochs=8, batch_size=8, learning_rate=5e-3)
    labels = {name: {row["label"] for row in run.data["files"] if row["split"] == name} for name in ("train", "val")}
    assert labels == {"train": {"0", "1"}, "val": {"0", "1"}}
    found = run.metrics["test"]["anomalies"]
    assert found["anomalies"] > 400
    assert found["auroc"] > 0.95
    rows = run.predictions
    called = [row for row in rows if row["anomaly"] == "1"]
    assert len(called) == sum(float(row["score"]) > run.metrics["anomaly"]["threshold"] for row in rows)


def test_boltzmann_machines_are_phases_whose_figures_choose_no_model(trained):
    run = trained(**KINDS["rbm"])
    assert [row["phase"] for row in run.log] == ["rbm-1", "rbm-2", "train", "train"]
    assert run.metrics["best"]["phase"] == "train"
    # What one phase has counted is not in the first epoch of the next: 64 visible units, then 24.
    assert float(run.log[1]["error"]) == pytest.approx(float(run.log[1]["val_error"]), rel=0.3)


def test_a_machine_ends_with_its_decoder_unrolled(sources, tmp_path):
    seen = {}

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            if self.model.name == "reconstructing":
                pairs = dense_pairs(seen["model"])
                seen["turned"] = [np.array_equal(np.array(down.kernel), np.array(up.kernel).T) for up, down in pairs]

    recipe = Autoencode(
        data=sources["DIGITS"], latent=4, epochs=1, pretrain="rbm", rbm_epochs=1, widths="24,12", runs=str(tmp_path)
    )
    build = autoencode.build

    def built(*given):
        seen["model"] = build(*given)
        return seen["model"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencode, "build", built)
        kerastk.train(recipe, show=False, callbacks=[Look()])
    assert seen["turned"] == [True, True, True]


@pytest.mark.slow
def test_denoising_makes_noisy_items_better(trained):
    figures = trained(**{**KINDS["denoising"], "epochs": 25, "widths": "128", "latent": 24}).metrics["test"]["denoised"]
    assert figures["psnr_after"] > figures["psnr_before"] + 3


def test_a_variational_run_tells_the_bound_and_its_parts(trained):
    run = trained(**KINDS["variational"])
    figures = run.metrics["test"]
    assert figures["elbo"] == pytest.approx(-figures["nats"] - figures["kl"])
    assert {"val_elbo", "val_nats", "val_kl", "kl", "nats"} <= set(run.log[0])
    assert "samples" in run.gallery["pictures"]


def test_equal_seeds_give_equal_runs(trained, sources, tmp_path):
    first = trained(**KINDS["conv"])
    second = kerastk.train(first.recipe.__class__(**{**_given(first), "runs": str(tmp_path), "name": None}), show=False)
    one, other = (keras.saving.load_model(run.model_keras, compile=False).weights for run in (first, second))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert first.predictions_csv.read_bytes() == second.predictions_csv.read_bytes()


def _given(run):
    import dataclasses

    return dataclasses.asdict(run.recipe)


@pytest.mark.slow
def test_a_run_in_bfloat16_is_finite_and_near_the_other(trained):
    plain, mixed = trained(**KINDS["conv"]), trained(**KINDS["conv"], precision="bfloat16")
    assert mixed.metrics["test"]["error"] == pytest.approx(plain.metrics["test"]["error"], rel=0.1)


def photos(folder, sizes, count=40):
    random = np.random.default_rng(0)
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        shade = random.integers(0, 200)
        pixels = np.clip(random.normal(shade, 20, (height, width, 3)), 0, 255).astype(np.uint8)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return str(folder)


def test_photos_need_no_classes(tmp_path):
    data = photos(tmp_path / "photos", [(24, 24)])
    run = kerastk.train(Autoencode(data=data, latent=4, epochs=1, widths="4,8", runs=str(tmp_path)), show=False)
    assert run.recipe.image_size == 24
    assert run.labels["shape"] == [24, 24, 3]
    assert {row["label"] for row in run.data["files"]} == {""}


def test_photos_of_different_sizes_need_a_rule(tmp_path):
    data = photos(tmp_path / "photos", [(24, 24), (40, 30)])
    recipe = {"data": data, "latent": 4, "epochs": 1, "runs": str(tmp_path / "runs")}
    with pytest.raises(
        DataError, match=r"photos of 2 sizes, such as 24 x 24 and 40 x 30: .* --resize crop, pad or str"
    ):
        kerastk.train(Autoencode(**recipe), show=False)
    assert not (tmp_path / "runs").exists()
    run = kerastk.train(Autoencode(**recipe, resize="pad", image_size=16), show=False)
    assert run.labels["shape"] == [16, 16, 3]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"latent": 400}, "latent 400 is no smaller than the 64 values of an item"),
        ({"data": "ROWS", "kind": "conv"}, "kind conv is for images, and the data has rows of"),
        ({"data": "ROWS", "masked": 0.5}, "masked 0.5 is for images"),
        ({"data": "ROWS", "binarise": True}, "binarise is for images"),
        ({"data": "ROWS", "loss": "ssim"}, "loss ssim is for images"),
        ({"data": "ROWS", "upsample": "resize"}, "upsample resize is for images"),
        ({"widths": "4,4,4,4"}, "halve an image 4 times; 8 x 8 pixels bear at most 3"),
        ({"masked": 0.5, "patch": 7}, "patch must be at most half of an image, 4; got 7"),
        ({"image_size": 16}, "image_size has no effect on arrays"),
        ({"normal": "0,seven"}, "normal: no class 'seven'"),
        ({"label_column": "kind"}, "label column 'kind' would not be used"),
    ],
)  # fmt: skip
def test_what_the_data_does_not_bear_is_refused_before_training(fields, reason, sources, tmp_path):
    given = {"data": "DIGITS", "latent": 4, "runs": str(tmp_path / "runs"), **fields}
    given["data"] = sources[given["data"]]
    with pytest.raises((RecipeError, DataError)) as caught:
        kerastk.train(Autoencode(**given), show=False)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((50, 3), np.nan, np.float32), "row 0, column 0 is nan"),
        (np.random.default_rng(0).random((6, 40)).astype("float32"), "fewer than the 10 numbers of a code"),
    ],
)
def test_rows_that_teach_nothing_are_refused(values, reason, tmp_path):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=reason):
        kerastk.train(Autoencode(data=str(tmp_path / "x.npy"), runs=str(tmp_path)), show=False)


def test_an_array_may_be_given_in_python(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (80, 8, 8), np.uint8)
    run = kerastk.train(Autoencode(latent=4, epochs=1, runs=str(tmp_path), kind="dense"), data=values, show=False)
    assert run.recipe.data is None
    assert run.metrics["test"]["items"] == 8
