"""A trained model measured on data it may or may not have seen."""

import os
from typing import Any

import numpy as np

from kerastk.datasets.check import check
from kerastk.datasets.pipeline import Split
from kerastk.datasets.source import open_source
from kerastk.errors import DataError, RunError
from kerastk.evaluation.metrics import classification
from kerastk.predictor import Predictor


def evaluate(predictor: Predictor, data: Any) -> dict[str, Any]:
    """The figures of all readable photos of `data`.

    Beside those of `classification` there are `trained_on` (photos that stand in the run's training or validation
    split, by content), `unreadable`, and, where some but not all were trained on, the figures of the rest as `unseen`.

    Raises:
        DataError: no photo can be read, or a label is not among the model's classes.
    """
    source = open_source(data)
    unknown = [name for name in source.classes if name not in predictor.classes]
    if unknown:
        raise DataError(
            f"the model does not know the class {', '.join(map(repr, unknown[:5]))}; it knows "
            f"{', '.join(map(repr, predictor.classes[:20]))}."
        )
    look = check(source)
    if not look.photos:
        raise DataError(f"no readable photos in {source.name}.")
    split = Split(
        look.photos, source.read, classes=predictor.classes, image_size=predictor.image_size, resize=predictor.resize,
        batch_size=predictor.batch_size, threads=min(16, os.cpu_count() or 1),
    )  # fmt: skip
    scores = np.concatenate([predictor.scores(images) for images, _ in split])
    try:
        seen_hashes = {file["sha256"] for file in predictor.run.data["files"] if file["split"] != "test"}
    except (KeyError, TypeError):
        raise RunError(f"{predictor.run.data_json} is damaged.") from None
    seen = np.array([photo.sha256 in seen_hashes for photo in look.photos])
    figures = classification(split.truth, scores, predictor.classes)
    figures |= {"trained_on": int(seen.sum()), "unreadable": len(look.bad)}
    if 0 < seen.sum() < len(seen):
        figures["unseen"] = classification(split.truth[~seen], scores[~seen], predictor.classes)
    return figures
