"""The processes of autoencode.py: kerastk's own trainings, linear codes, the autoencoder of the Keras blog, the scorer.

    python benchmarks/autoencode_ways.py STAGE WORK/.../job.json

A stage leaves its values in STAGE.json beside the job.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kerastk
from kerastk import recipes, shipped
from kerastk.datasets.arrays import open_arrays
from kerastk.evaluation import components, reconstruction
from kerastk.storage import write_atomic

Values = dict[str, Any]

# What counts of a run, from what metrics.json says of the test split: summed squared error of an image, decibels of
# PSNR that are gained, decibels by which patterns of period 2 stand out, nats, and the area under the ROC curve.
FIGURES: dict[str, Callable[[Values], float]] = {
    "error": lambda test: test["error"],
    "gain": lambda test: test["denoised"]["psnr_after"] - test["denoised"]["psnr_before"],
    "checkerboard": lambda test: test["checkerboard"]["reconstructions"],
    "elbo": lambda test: test["elbo"],
    "auroc": lambda test: test["anomalies"]["auroc"],
}
# How far the scorer and kerastk's own figure may lie apart, relatively: they sum the same errors in another order.
APART = 1e-3
BATCH = 500


def recipe_of(job: Values) -> kerastk.Autoencode:
    """The shipped recipe of a job with its `options`."""
    given = {"data": job["data"], "seed": job["seed"], "runs": str(Path(job["folder"]) / "runs"), **job["options"]}
    return dataclasses.replace(getattr(recipes, job["recipe"]), **given)


def train(job: Values) -> Values:
    """A run: its path, and what its metrics.json holds of the test split; `interval` is that of its false alarms."""
    run = kerastk.train(recipe_of(job))
    test, anomaly, best = (run.metrics[name] for name in ("test", "anomaly", "best"))
    calibrated, normal = anomaly["calibrated_on"], test["anomalies"]["normal"]
    interval = reconstruction.false_alarm_interval(normal, calibrated, anomaly["false_alarms"])
    return {
        "figure": job["figure"], "score": FIGURES[job["figure"]](test), "run": str(run.path), "test": test,
        "epochs": len(run.log), "best_epoch": best["epoch"], "calibrated_on": calibrated, "interval": interval,
    }  # fmt: skip


def images(job: Values, split: str) -> np.ndarray:
    """The images of a split as they come, (images, height, width, 1) uint8: what the run cut from them is with them."""
    arrays = open_arrays(shipped.data(job["data"]))
    return arrays.values[np.array([each == split for each in arrays.splits])]


def score(job: Values) -> Values:
    """Summed squared error of each test image by the saved model, which plain Keras opens; their mean.

    Refuses figures of kerastk's own that are others.
    """
    import keras

    folder = Path(job["folder"])
    own = json.loads((folder / "train.json").read_text()) if (folder / "train.json").exists() else None
    path = folder / "guide.keras" if own is None else Path(own["run"]) / "model.keras"
    model = keras.saving.load_model(path, compile=False)
    errors = []
    whole = images(job, "test")
    for start in range(0, len(whole), BATCH):
        part = whole[start : start + BATCH]
        scaled = part.reshape(len(part), -1).astype(np.float32) / 255
        made = model.predict_on_batch(scaled if own is None else part)
        made = np.asarray(made if own is None else made["reconstruction"]).reshape(len(part), -1)
        errors.append(np.square(scaled - made, dtype=np.float64).sum(axis=1))
    found = reconstruction.figures(np.concatenate(errors), whole[0].size)
    if own is not None and abs(own["test"]["error"] / found["error"] - 1) > APART:
        raise SystemExit(f"the run says {own['test']['error']}, its model {found['error']}.")
    return summary(found)


def linear(job: Values) -> Values:
    """The same of a linear or logistic code of `size` numbers, fitted on all training images."""
    fitted, asked = (reconstruction.scaled(images(job, split), None) for split in ("train", "test"))
    fit = components.logistic if job["logistic"] else components.principal
    code = fit(fitted, job["size"], seed=job["seed"])
    del fitted
    parts = (asked[start : start + BATCH] for start in range(0, len(asked), BATCH))
    errors = [np.square(part - code.reconstruct(part), dtype=np.float64).sum(axis=1) for part in parts]
    found = reconstruction.figures(np.concatenate(errors), asked.shape[1])
    return {**summary(found), "fitted_on": code.items}


def summary(found: Values) -> Values:
    """The figures of a reconstruction as a row has them."""
    return {"figure": "error", "score": found["error"], "error_95": found["error_95"], "images": found["items"]}


def guide(job: Values) -> Values:
    """The deep autoencoder of the Keras blog ("Building Autoencoders in Keras", Chollet 2016): 784-128-64-32 and back.

    Rectified linear units, a sigmoid at the end, cross-entropy, Adam as it comes, 100 epochs of batches of 256. What of
    the images kerastk chooses its model by is learned from, too; the last epoch counts.
    """
    import keras

    keras.utils.set_random_seed(job["seed"])
    pixels = reconstruction.scaled(images(job, "train"), None)
    hidden = item = keras.Input((pixels.shape[1],))
    for units in (128, 64, 32, 64, 128):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    model = keras.Model(item, keras.layers.Dense(pixels.shape[1], activation="sigmoid")(hidden))
    model.compile(optimizer="adam", loss="binary_crossentropy")
    epochs = job["epochs"] or 100
    model.fit(pixels, pixels, batch_size=256, epochs=epochs, shuffle=True, verbose=0)
    model.save(Path(job["folder"]) / "guide.keras")
    return {"epochs": epochs}


def export(job: Values) -> Values:
    """What a peer gets: the normal images that kerastk learns from, and all test images, from 0 to 1, a row each."""
    data = kerastk.open_data(recipe_of(job))
    train, test = (reconstruction.scaled(rows.values[rows.rows], None) for rows in (data.train, data.test))
    normal = set(job["options"]["normal"].split(","))
    anomalous = np.array([photo.label not in normal for photo in data.test.photos])
    np.savez(Path(job["folder"]) / "images.npz", train=train, test=test, anomalous=anomalous)
    return {"train": len(train), "test": len(test)}


def judge(job: Values) -> Values:
    """How well a peer's scores tell the anomalies."""
    folder = Path(job["folder"])
    anomalous = np.load(folder / "images.npz")["anomalous"]
    found = reconstruction.detection(np.load(folder / "scores.npy"), anomalous, np.inf)
    return {"figure": "auroc", "score": found["auroc"], "test": {"anomalies": found}}


STAGES: dict[str, Callable[[Values], Values]] = {
    "train": train, "score": score, "linear": linear, "guide": guide, "export": export, "judge": judge,
}  # fmt: skip


def main(stage: str, job: Path) -> None:
    values = STAGES[stage](json.loads(job.read_text()))
    write_atomic(job.with_name(f"{stage}.json"), json.dumps(values))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
