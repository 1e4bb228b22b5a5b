"""On real photos and real ImageNet weights, where they are at hand (see CONTRIBUTING.md)."""

import zipfile

import numpy as np
import pytest

import kerastk

WEIGHTS = "mobilenet_v2_1.0_224_notop.weights.h5"


def available(shared, *names):
    paths = [shared / name for name in names]
    for path in paths:
        if not path.exists():
            pytest.skip(f"no {path.name} in the folder of shared data")
    return [str(path) for path in paths]


def test_weather4_trains_and_every_photo_is_used_or_listed(shared, tmp_path):
    data, weights = available(shared, "data/weather4.zip", "weights/mobilenet_v2_0.35_224_notop.weights.h5")
    run = kerastk.train(
        kerastk.Finetune(
            data=data, base="mobilenet_v2_0.35", weights=weights, image_size=96, unfreeze="head",
            runs=str(tmp_path),
        ),
        show=False,
    )  # fmt: skip
    kinds = {}
    for finding in run.data["findings"]:
        kinds.setdefault(finding["kind"], []).append(finding)
    assert len(run.data["files"]) + len(run.data["set_aside"]) == 250
    # GIFs and PNGs under a .jpg name are used, and said to be what they are.
    assert {finding["text"] for finding in kinds["suffix"]} == {"it is GIF", "it is PNG"}
    used = {file["path"] for file in run.data["files"]}
    assert {finding["paths"][0] for finding in kinds["suffix"]} <= used
    assert run.metrics["test"]["accuracy"] > 2 * run.metrics["test"]["majority_share"]


def finetuned(shared, name, seed, folder):
    data, weights = available(shared, f"data/{name}.zip", f"weights/{WEIGHTS}")
    recipe = kerastk.Finetune(data=data, weights=weights, split_seed=seed, runs=str(folder))
    return kerastk.train(recipe, show=False)


@pytest.mark.slow
def test_flowers5_reaches_91_percent_with_defaults(shared, tmp_path):
    accuracies = [finetuned(shared, "flowers5", seed, tmp_path).metrics["test"]["accuracy"] for seed in range(3)]
    assert np.mean(accuracies) >= 0.91, accuracies


@pytest.mark.slow
def test_caltech24_is_not_below_a_logistic_regression_on_features(shared, tmp_path):
    import keras
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from kerastk.networks.classifier import classifier
    from kerastk.networks.cuts import features

    data, weights = available(shared, "data/caltech24.zip", f"weights/{WEIGHTS}")
    whole = classifier("mobilenet_v2", classes=24, image_size=224, dropout=0.0, weights=weights)
    base = keras.Model(whole.input, features(whole))
    differences = []
    for seed in range(3):
        opened = kerastk.open_data(kerastk.Finetune(data=data, weights=weights, split_seed=seed, augment="none"))
        sides = {}
        for name in ("train", "test"):
            split = getattr(opened, name)
            pairs = [split.example(number) for number in range(len(split.photos))]
            sides[name] = base.predict(np.stack([pixels for pixels, _ in pairs]), verbose=0), split.truth
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(*sides["train"])
        run = finetuned(shared, "caltech24", seed, tmp_path)
        photos = run.metrics["test"]["photos"]
        differences.append(run.metrics["test"]["accuracy"] - probe.score(*sides["test"]))
        error = np.sqrt(0.02 * 0.98 * 2 / photos)
    assert np.mean(differences) >= -error / np.sqrt(3), differences


def test_features_of_a_pretrained_network_tell_rain_from_the_rest_where_pixels_do_not(shared, tmp_path, monkeypatch):
    from kerastk.evaluation.distance import Distance
    from kerastk.networks import weights as files

    data, weights = available(shared, "data/weather4.zip", "weights/mobilenet_v2_0.35_224_notop.weights.h5")
    monkeypatch.setattr(files, "imagenet", lambda base: weights)
    recipe = kerastk.Autoencode(
        data=data, normal="rain", features="mobilenet_v2_0.35", resize="crop", image_size=16, widths="8", latent=8,
        epochs=1, batch_size=8, runs=str(tmp_path),
    )  # fmt: skip
    run = kerastk.train(recipe, show=False)
    figures, rows = run.metrics["test"], run.predictions
    assert figures["anomalies_by_distance"]["auroc"] > max(0.9, figures["anomalies"]["auroc"])
    assert run.metrics["anomaly"]["distance"]["base"] == "mobilenet_v2_0.35"
    far = run.metrics["anomaly"]["distance"]["threshold"]
    normal = [float(row["distance"]) for row in rows if row["label"] == "rain"]
    others = [float(row["distance"]) for row in rows if row["label"] != "rain"]
    assert np.median(others) > far > np.median(normal)
    reconstructor = kerastk.load(run)
    with zipfile.ZipFile(data) as archive:
        photo = archive.read(rows[0]["path"])
    assert reconstructor.distance(photo) == pytest.approx(float(rows[0]["distance"]), rel=1e-3)
    assert reconstructor.distance([photo, photo]).shape == (2,)
    # The network and the features that it is compared with are in the run.
    kept = Distance.load(run.features_npz)
    assert kept.kept.shape[1] == 1280
    assert kept(kept.kept[:3]).max() < far
