"""How the run of an autoencoder is shown, judged and written."""

from typing import Any

import keras
import numpy as np

from kerastk.datasets.images import thumbnail
from kerastk.datasets.pipeline import Rows, Varied
from kerastk.evaluation import components, gallery, reconstruction
from kerastk.evaluation.distance import NEIGHBOURS, Distance
from kerastk.evaluation.gallery import grid
from kerastk.evaluation.reconstruction import Answers
from kerastk.networks.autoencoder import Standard, decoder, encoder
from kerastk.networks.bases import BASES, find
from kerastk.networks.classifier import classifier, features_model
from kerastk.recipe import Autoencode, Finetune
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.tasks import frozen
from kerastk.tasks.items import Data, examples, learned, shape_of, standard_of
from kerastk.training.fitting import Fitting
from kerastk.training.plan import Plan
from kerastk.training.projector import POINTS, SIDE, projector_files
from kerastk.training.reconstruction import Reconstructing, means
from kerastk.training.signals import dispensable
from kerastk.training.tensorboard import Events, Writer

# Items of the pictures.
PICTURED = 12
_FINAL = ("error", "psnr", "elbo", "nats", "kl")


def open_board(plan: Plan, writer: Writer) -> None:
    """What TensorBoard shows of the items before the first step: as they are, and as the network will see them."""
    if len(shape_of(plan.data)) == 3:
        items = examples(plan.data.train, _spread(len(plan.data.train.photos), PICTURED))
        rows = [items]
        if damages(plan.recipe):
            rows.append(_damaged(plan, items)["item"])
        writer.image("training images", grid(rows), 0)


def damages(recipe: Autoencode) -> bool:
    """Whether the network is shown something else than the items."""
    return bool(recipe.noise or recipe.masked or recipe.binarise)


def _damaged(plan: Plan, items: np.ndarray) -> dict[str, np.ndarray]:
    vary = plan.phases[-1].vary
    return vary(items, np.zeros((len(items), 1)), np.random.default_rng([plan.recipe.seed, 0]))[0]


class Reconstructions(keras.callbacks.Callback):
    """Shows TensorBoard, after each epoch, some validation images, what is seen of them, and what is made of that."""

    def __init__(self, plan: Plan, events: Events):
        super().__init__()
        self._events, self._network = events, plan.model
        items = examples(plan.data.val, _spread(len(plan.data.val.photos), PICTURED))
        self._seen = _damaged(plan, items)["item"] if damages(plan.recipe) else items
        self._rows = [items, self._seen] if damages(plan.recipe) else [items]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look."""
        made = np.asarray(self._network.predict_on_batch(self._seen)["reconstruction"])
        self._events.writer.image("reconstructions", grid([*self._rows, made]), self._events.step, "validation")


def watching(plan: Plan, events: Events) -> list[keras.callbacks.Callback]:
    """The callbacks that show what becomes of images."""
    return [Reconstructions(plan, events)] if len(shape_of(plan.data)) == 3 else []


def conclude(plan: Plan, fitting: Fitting, run: Run, events: Events, screen: Screen) -> dict[str, Any]:
    """Write the model and all that it answers; what metrics.json holds of it."""
    model, data, recipe = plan.model, plan.data, plan.recipe
    run.write_model(model)
    run.write_part("encoder", encoder(model))
    run.write_part("decoder", decoder(model))
    standard, values = standard_of(data), int(np.prod(shape_of(data)))
    rivals = _rivals(plan, standard, values)
    splits = {name: rows for name, rows in (("validation", data.val), ("test", data.test)) if rows is not None}
    found = {
        name: reconstruction.answers(model, reconstruction.items_of(rows), standard) for name, rows in splits.items()
    }
    judged = {name: _figures(plan, splits[name], found[name], rivals, standard) for name in splits}
    limit = reconstruction.threshold(found["validation"].errors, recipe.false_alarms)
    for name, rows in splits.items():
        judged[name]["anomalies"] = reconstruction.detection(found[name].errors, _anomalous(recipe, rows), limit)
    last = "test" if "test" in splits else "validation"
    anomaly: dict[str, Any] = {
        "score": "error", "threshold": limit, "false_alarms": recipe.false_alarms,
        "calibrated_on": len(found["validation"].errors),
    }  # fmt: skip
    distances = None
    if recipe.features is not None:
        scores = _by_distance(plan, run, screen)
        far = reconstruction.threshold(scores["validation"], recipe.false_alarms)
        anomaly["distance"] = {"base": recipe.features, "threshold": far, "neighbours": NEIGHBOURS}
        for name, rows in splits.items():
            judged[name]["anomalies_by_distance"] = reconstruction.detection(
                scores[name], _anomalous(recipe, rows), far
            )
        distances = scores[last]
    run.write_predictions(_predictions(splits[last], found[last].errors, limit, distances))
    with dispensable(screen.warn, "the pictures are not kept for the report"):
        run.write_gallery(_gallery(plan, splits[last], found[last], last, rivals, standard))
    shown = _spread(len(data.val.photos), POINTS)
    run.write_projector(_projector(data, found["validation"], shown))
    _write_board(plan, judged, fitting, events)
    return {**judged, "anomaly": anomaly}


def _rivals(plan: Plan, standard: Standard | None, values: int) -> dict[str, components.Components]:
    """Linear codes of the same size, fitted on the training items, by name."""
    latent = plan.recipe.latent
    items = reconstruction.scaled(learned(plan.data, max(1, components.MOST_VALUES // values)), standard)
    if latent > min(items.shape):
        return {}
    found = {"PCA": components.principal(items, latent, seed=plan.recipe.seed)}
    if plan.recipe.loss == "bce":
        found["logistic PCA"] = components.logistic(items, latent, seed=plan.recipe.seed)
    return found


def _figures(
    plan: Plan, rows: Rows, found: Answers, rivals: dict[str, components.Components], standard: Standard | None
) -> dict[str, Any]:
    """The figures of a split; errors are those of what is normal, where that is there."""
    recipe, values = plan.recipe, int(np.prod(shape_of(plan.data)))
    normal = ~_anomalous(recipe, rows)
    normal = normal if normal.any() else np.ones(len(normal), bool)
    figures = reconstruction.figures(found.errors[normal], values) | {"items": len(found.errors)}
    theirs: dict[str, list[np.ndarray]] = {name: [] for name in rivals}
    for items in reconstruction.items_of(rows) if rivals else ():
        flat = reconstruction.scaled(items, standard)
        for name, rival in rivals.items():
            theirs[name].append(np.square(flat - rival.reconstruct(flat), dtype=np.float64).sum(axis=1))
    figures["rivals"] = {
        name: {"error": float(np.concatenate(theirs[name])[normal].mean()), "fitted_on": rival.items}
        for name, rival in rivals.items()
    }
    if recipe.variational:
        objective, vary = plan.phases[-1].objective, plan.phases[-1].vary
        asked = means(Reconstructing(plan.model, objective), rows, vary, columns=objective.columns, seed=recipe.seed)
        figures |= {name: asked[name] for name in ("elbo", "nats", "kl")}
        figures["prior"] = _prior(plan.model, rows)
    if recipe.noise is not None:
        figures["denoised"] = _denoised(plan, rows, standard, values)
    if standard is None:
        figures["checkerboard"] = _checkerboard(plan.model, rows)
    return figures


def _prior(model: keras.Model, rows: Rows) -> dict[str, Any]:
    asked = [model.predict_on_batch(items) for items in reconstruction.items_of(rows)]
    codes, logs = (np.concatenate([each[name] for each in asked]) for name in ("code", "log_variance"))
    return reconstruction.describe_prior(codes, logs)


def _denoised(plan: Plan, rows: Rows, standard: Standard | None, values: int) -> dict[str, float]:
    """PSNR of damaged items and of what the network makes of them, in decibels."""
    before = after = 0.0
    for inputs, _ in Varied(rows.batches(0, 1), plan.phases[-1].vary, plan.recipe.seed, 0):
        whole, seen = inputs["target"], inputs["item"]
        made = np.asarray(plan.model.predict_on_batch(seen)["reconstruction"])
        after += float(reconstruction.item_errors(whole, made, standard).sum())
        flat, damaged = (reconstruction.scaled(each, standard) for each in (whole, seen))
        before += float(np.square(flat - damaged, dtype=np.float64).sum())
    total = len(rows.photos) * values
    return {"psnr_before": reconstruction.psnr(before / total), "psnr_after": reconstruction.psnr(after / total)}


def _checkerboard(model: keras.Model, rows: Rows) -> dict[str, float]:
    items = examples(rows, _spread(len(rows.photos), 256))
    made = np.concatenate([np.asarray(model.predict_on_batch(part)["reconstruction"]) for part in _parts(items)])
    return {
        "reconstructions": reconstruction.checkerboard(made),
        "originals": reconstruction.checkerboard(items.astype(np.float32) / 255),
    }


def _parts(items: np.ndarray, size: int = 64) -> list[np.ndarray]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _anomalous(recipe: Autoencode, rows: Rows) -> np.ndarray:
    """(items,) bool: which items of a split are of no normal class."""
    normal = recipe.normal_classes
    return np.array([bool(normal) and photo.label not in normal for photo in rows.photos])


def _by_distance(plan: Plan, run: Run, screen: Screen) -> dict[str, np.ndarray]:
    """Of each split, how far its photos lie from the training photos in a pretrained network's features.

    Writes that network and those features into the run.
    """
    base = BASES[plan.recipe.features]
    recipe = finetuning(plan.recipe)
    model = classifier(recipe.base, classes=2, image_size=base.image_size, dropout=0.0, weights="imagenet")
    found = {}
    for name, rows in (("train", plan.data.train), ("validation", plan.data.val), ("test", plan.data.test)):
        if rows is not None:
            with screen.working(f"features of {name}") as progress:
                found[name] = frozen.vectors(
                    recipe, model, rows.plain(base.image_size), progress=progress, warn=screen.warn
                )
    distance = Distance(found.pop("train"))
    run.write_features(features_model(model), distance)
    return {name: distance(vectors) for name, vectors in found.items()}


def finetuning(recipe: Autoencode) -> Finetune:
    """What says how photos become features of the network that `features` names, as fine-tuning says it."""
    base = find(recipe.features)
    return Finetune(
        base=base, image_size=BASES[base].image_size, resize=recipe.resize or "crop", precision="float32",
        device=recipe.device,
    )  # fmt: skip


def _predictions(rows: Rows, errors: np.ndarray, limit: float, distances: np.ndarray | None) -> list[dict[str, Any]]:
    """Rows of path, label, score (the error) and whether that makes an anomaly; and distance, where there is one."""
    found = [
        {"path": photo.path, "label": photo.label, "score": f"{error:.6g}", "anomaly": int(error > limit)}
        for photo, error in zip(rows.photos, errors.tolist(), strict=True)
    ]
    for row, distance in zip(found, [] if distances is None else distances.tolist(), strict=distances is not None):
        row["distance"] = f"{distance:.6g}"
    return found


def _projector(data: Data, found: Answers, shown: np.ndarray) -> dict[str, str | bytes]:
    """The files of TensorBoard's projector: the codes of validation items."""
    if not np.isfinite(found.codes).all():
        return {}
    photos = [data.val.photos[number] for number in shown]
    columns = {
        "label": [photo.label for photo in photos],
        "error": [f"{found.errors[number]:.4g}" for number in shown],
        "path": [photo.path for photo in photos],
    }
    thumbnails = None
    if len(shape_of(data)) == 3:
        images = examples(data.val, shown)
        thumbnails = [thumbnail(image, min(SIDE, len(image))) for image in images]
    return projector_files(found.codes[shown], thumbnails, columns, what="codes of the validation items")


def _gallery(
    plan: Plan, rows: Rows, found: Answers, name: str, rivals: dict[str, components.Components],
    standard: Standard | None,
) -> dict[str, Any]:  # fmt: skip
    """What the report shows of a split."""
    numbers = _spread(len(rows.photos), gallery.WIDE if standard is None else 1000)
    worst = gallery.worst_of(found.errors)
    items = examples(rows, numbers)
    return gallery.record(
        plan.model, items, _damaged(plan, items)["item"] if damages(plan.recipe) else None, found, photos=rows.photos,
        numbers=numbers, worst=worst, worst_items=examples(rows, worst), rivals=rivals, standard=standard,
        variational=plan.recipe.variational, split=name, seed=plan.recipe.seed,
        columns=getattr(plan.data, "columns", None),
    )  # fmt: skip


def _write_board(plan: Plan, judged: dict[str, dict[str, Any]], fitting: Fitting, events: Events) -> None:
    writer = events.writer
    for name, figures in judged.items():
        final = {f"final/{name}_{key}": figures[key] for key in _FINAL if key in figures}
        if "PCA" in figures["rivals"]:
            final[f"final/{name}_pca"] = figures["rivals"]["PCA"]["error"]
        writer.scalars(final, events.step)
    writer.scalars({"final/seconds": fitting.seconds}, events.step)
    writer.finished()
    writer.flush()


def _spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, wanted).astype(int))
