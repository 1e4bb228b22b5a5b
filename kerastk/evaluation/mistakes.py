"""The photos worth looking at: the worst mistakes, and labels that may be wrong.

They are chosen when a run ends, and written with small pictures, so that the report needs neither data nor model.
"""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastk.datasets.images import smaller, to_webp
from kerastk.errors import DataError

if TYPE_CHECKING:
    import keras

    from kerastk.datasets.pipeline import Split

FORMAT = 1
MISTAKES = 24
# Of suspected labels so many have a picture, and so many are listed at all.
PICTURED, LISTED = 24, 500
# The longer side of a picture, in pixels.
PICTURE = 192


def worst(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The numbers of the photos that are answered wrongly, those with the least probability of the truth first."""
    of_truth = scores[np.arange(len(truth)), truth]
    wrong = np.flatnonzero(scores.argmax(axis=1) != truth)
    return wrong[np.argsort(of_truth[wrong], kind="stable")]


def thresholds(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How sure the model is, on average, of each class on the photos with its label: (classes,), 1 without photos.

    These are the per-class thresholds of confident learning (Northcutt et al. 2021, arXiv:1911.00068).
    """
    counts = np.bincount(truth, minlength=scores.shape[1])
    sums = np.bincount(truth, weights=scores[np.arange(len(truth)), truth], minlength=scores.shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)


def suspects(truth: np.ndarray, scores: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The numbers of the photos whose label may be wrong, the plainest first.

    The model answers another class than the label, and is as sure of it as `sure` (`thresholds`) says it is of photos
    with that class's label.
    """
    answer = scores.argmax(axis=1)
    rows = np.arange(len(truth))
    found = np.flatnonzero((answer != truth) & (scores[rows, answer] >= sure[answer]))
    margin = scores[found, answer[found]] - scores[found, truth[found]]
    return found[np.argsort(-margin, kind="stable")]


def record(
    model: "keras.Model | None", judged: Mapping[str, tuple["Split", np.ndarray]], *, probabilities: bool
) -> dict[str, Any]:
    """The content of the run folder's mistakes.json.

    Args:
        model: what explains its answers; None where it has no head.
        judged: the validation and, if there is one, the test split by name, with the model's scores.
        probabilities: whether the scores are any; else no label is suspected.
    """
    from kerastk.evaluation.explain import explainable

    split = "test" if "test" in judged else "validation"
    chosen = {"mistakes": [(split, number) for number in worst(judged[split][0].truth, judged[split][1])]}
    sure = None
    if probabilities:
        truth = np.concatenate([rows.truth for rows, _ in judged.values()])
        scores = np.concatenate([found for _, found in judged.values()])
        places = [(name, number) for name, (rows, _) in judged.items() for number in range(len(rows.photos))]
        sure = thresholds(truth, scores)
        chosen["suspects"] = [places[each] for each in suspects(truth, scores, sure)]
    counts = {name: len(found) for name, found in chosen.items()}
    shown = {name: found[: MISTAKES if name == "mistakes" else LISTED] for name, found in chosen.items()}
    order = list(dict.fromkeys(each for found in shown.values() for each in found))
    pictured = {*shown["mistakes"], *shown.get("suspects", [])[:PICTURED]}
    photos = [_facts(judged, *each, sure) for each in order]
    explained = model is not None and explainable(model)
    wanted = [(facts, each) for facts, each in zip(photos, order, strict=True) if each in pictured]
    _add_pictures(judged, wanted, model if explained else None)
    number_of = {each: number for number, each in enumerate(order)}
    return {
        "format": FORMAT,
        "split": split,
        "counts": counts,
        "explained": explained,
        **{name: [number_of[each] for each in found] for name, found in shown.items()},
        "photos": photos,
    }


def _facts(
    judged: Mapping[str, tuple["Split", np.ndarray]], split: str, number: int, sure: np.ndarray | None
) -> dict[str, Any]:
    rows, scores = judged[split]
    photo, row = rows.photos[number], scores[number]
    answer = int(row.argmax())
    found = {
        "split": split, "path": photo.path, "truth": photo.label, "answer": rows.classes[answer],
        "probability": float(row[answer]), "probability_of_truth": float(row[rows.truth_of(number)]),
    }  # fmt: skip
    return found if sure is None else {**found, "threshold": float(sure[answer])}


def _add_pictures(
    judged: Mapping[str, tuple["Split", np.ndarray]],
    wanted: list[tuple[dict[str, Any], tuple[str, int]]],
    model: "keras.Model | None",
) -> None:
    """Put `picture` (WebP in base64) into the facts of photos and, with a model, `heat` (rows of 0 to 255)."""
    from kerastk.evaluation.explain import heat_maps

    seen, pixels, answers = [], [], []
    for facts, (split, number) in wanted:
        rows, scores = judged[split]
        try:
            pixels.append(rows.example(number)[0])
        except DataError:
            # The photo went away after it was judged; its figures stay.
            continue
        seen.append(facts)
        answers.append(int(scores[number].argmax()))
        facts["picture"] = base64.b64encode(to_webp(smaller(pixels[-1], PICTURE))).decode()
    if model is not None and seen:
        maps = heat_maps(model, np.stack(pixels), np.array(answers))
        for facts, heat in zip(seen, maps, strict=True):
            facts["heat"] = np.rint(255 * heat).astype(int).tolist()
