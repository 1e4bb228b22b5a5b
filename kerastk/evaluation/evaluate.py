"""A trained model measured on data it may or may not have seen."""

import math
import os
from typing import Any

import numpy as np

from kerastk.datasets.schemes import PLAIN, convert
from kerastk.datasets.sequences import open_sentences
from kerastk.datasets.source import natural_key
from kerastk.errors import DataError, RunError
from kerastk.evaluation.metrics import classification
from kerastk.evaluation.spans import tagging
from kerastk.predictor import Predictor
from kerastk.reconstructor import Reconstructor
from kerastk.run import Run
from kerastk.tagger import Tagger


def evaluate(predictor: Predictor | Tagger | Reconstructor, data: Any) -> dict[str, Any]:
    """The figures of a predictor on all of `data`: see `evaluate_photos`, `evaluate_sentences`, `evaluate_items`."""
    measure = {Tagger: evaluate_sentences, Reconstructor: evaluate_items}.get(type(predictor), evaluate_photos)
    return measure(predictor, data)


def evaluate_sentences(tagger: Tagger, path: str | os.PathLike) -> dict[str, Any]:
    """The figures of a file of tagged sentences, read as the run's recipe says.

    Beside those of `spans.tagging` there are `trained_on` (sentences whose words stand in the run's training or
    validation split) and, where some but not all were trained on, the figures of the rest as `unseen`.

    Raises:
        DataError: the file cannot be read, or its tags are of another sort than the tagger's.
    """
    recipe = tagger.run.recipe
    columns = None if os.fspath(path).removesuffix(".gz").endswith((".jsonl", ".conllu")) else recipe.columns
    found = open_sentences(path, columns=columns, tag_column=recipe.tag_column)
    if found.scheme is None:
        raise DataError(
            f"{path} has no tags to compare with; name its columns in the recipe, or use `kerastk predict`."
        )
    if (found.scheme == PLAIN) != (tagger.scheme == PLAIN):
        raise DataError(f"the tags of {path} are {found.scheme}, those of the tagger {tagger.source_scheme}.")
    words = [each.tokens for each in found.sentences]
    truth = [convert(each.tags, found.scheme, tagger.source_scheme) for each in found.sentences]
    guess = list(tagger.tags(words))
    known = _seen(tagger.run)
    seen = np.array([each.sha256 in known for each in found.sentences])
    figures = tagging(truth, guess, tagger.source_scheme) | {"trained_on": int(seen.sum())}
    if 0 < seen.sum() < len(seen):
        rest = np.flatnonzero(~seen)
        figures["unseen"] = tagging(
            [truth[place] for place in rest], [guess[place] for place in rest], tagger.source_scheme
        )
    return figures


def _seen(run: Run) -> set[str]:
    """The hashes of what a run was trained on, or chosen by."""
    try:
        return {digest for digest, split in run.assigned.items() if split != "test"}
    except (KeyError, TypeError):
        raise RunError(f"{run.data_json} is damaged.") from None


def evaluate_photos(predictor: Predictor, data: Any) -> dict[str, Any]:
    """The figures of all readable images of `data`, photos or arrays.

    Beside those of `classification` there are `trained_on` (photos that stand in the run's training or validation
    split, by content), `unreadable`, where answers are means over views `tta`, and, where some but not all were trained
    on, the figures of the rest as `unseen`.

    Raises:
        DataError: no photo can be read, or a label is not among the model's classes.
    """
    found = predictor.collected(data)
    unknown = sorted(set(found.labels) - set(predictor.classes), key=natural_key)
    if unknown:
        raise DataError(
            f"the model does not know the class {', '.join(map(repr, unknown[:5]))}; it knows "
            f"{', '.join(map(repr, predictor.classes[:20]))}."
        )
    parts, known, trained_on = [], _seen(predictor.run), []
    for images, digests in found.batches(predictor.batch_size):
        parts.append(predictor.scores(images))
        trained_on += [digest in known for digest in digests]
    scores, seen = np.concatenate(parts), np.array(trained_on)
    truth = np.array([predictor.classes.index(label) for label in found.labels])
    figures = classification(truth, scores, predictor.classes)
    figures |= {"trained_on": int(seen.sum()), "unreadable": found.unreadable}
    if predictor.tta:
        figures["tta"] = ",".join(predictor.tta)
    if 0 < seen.sum() < len(seen):
        figures["unseen"] = classification(truth[~seen], scores[~seen], predictor.classes)
    return figures


def evaluate_items(reconstructor: Reconstructor, data: Any) -> dict[str, Any]:
    """The figures of all readable items of `data`, images or rows of numbers, which need no labels.

    Beside those of `reconstruction.figures` there are, as `anomalies`, the share of them `above` the threshold and,
    where it is known which are normal, what `reconstruction.detection` finds; `trained_on` (items that stand in the
    run's training or validation split, by content), `unreadable`, and, where some but not all were trained on, the
    figures of the rest as `unseen`. Where the recipe names normal classes, labels tell them; else all count as normal.

    Raises:
        DataError: no item can be read, they are not what the network takes, or it has no number for one.
    """
    from kerastk.evaluation import reconstruction

    normal = reconstructor.recipe.normal_classes
    found, known = reconstructor.collected(data), _seen(reconstructor.run)
    errors, seen = [], []
    for items, digests in found.batches(reconstructor.batch_size):
        errors.append(reconstructor.score(items))
        seen += [digest in known for digest in digests]
    scores, trained_on = np.concatenate(errors), np.array(seen)
    if not np.isfinite(scores).all():
        path = found.paths[int(np.argmin(np.isfinite(scores)))]
        raise DataError(f"{path}: the network's answer is no number, so far is it from what was learned; leave it out.")
    anomalous = np.array([bool(normal) and label not in normal for label in found.labels])
    told = not normal or all(found.labels)

    def figures(chosen: np.ndarray) -> dict[str, Any]:
        values, limit = scores[chosen], reconstructor.threshold
        detected = reconstruction.detection(values, anomalous[chosen], limit) if told else {}
        return {
            **reconstruction.figures(values, math.prod(reconstructor.shape)),
            "rivals": {},
            "anomalies": {"above": float((values > limit).mean()), **detected},
        }

    all_of_them = figures(np.ones(len(scores), bool))
    all_of_them |= {"trained_on": int(trained_on.sum()), "unreadable": found.unreadable}
    if 0 < trained_on.sum() < len(scores):
        all_of_them["unseen"] = figures(~trained_on)
    return all_of_them
