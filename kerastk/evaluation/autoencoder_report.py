"""The page about the run of an autoencoder."""

import base64
import dataclasses
from collections import Counter
from typing import Any

import numpy as np
from markupsafe import Markup

from kerastk.datasets.check import KINDS
from kerastk.datasets.images import to_png, to_webp, whole
from kerastk.errors import PhotoError
from kerastk.evaluation import charts, page
from kerastk.evaluation.autoencoder_about import AutoencoderAbout, decibels, missed, spelled
from kerastk.evaluation.autoencoder_reading import (
    GAP,
    CodeFigures,
    CodeLabels,
    Detection,
    Gallery,
    ItemData,
    Limits,
    Picture,
    Scored,
)
from kerastk.evaluation.reading import Metrics, believed
from kerastk.evaluation.reconstruction import false_alarm_interval
from kerastk.run import Run
from kerastk.screen import printable

# A split of fewer items, whose interval is wide, is pointed out.
FEW = 200
# Labels that have a colour of their own on the map, the most frequent ones: charts' numbers.
COLOURS = (1, 2, 3, 4, 5, 7, 9, 10, 11, 12)
# Of labels so many have a row in a table, those with the largest errors; of items, where there are no pictures.
LABELS, WORST = 100, 12
# Characters of a path that are shown.
_LONGEST_PATH = 200
# Pictures of fewer pixels a side are enlarged pixel by pixel.
_SMALL = 96
# Findings that may spoil what is learned or measured.
_SERIOUS = ("leak",)
# A pattern of period 2 that stands out by more, in decibels, is pointed out.
_PATTERN = 1.0


def about(run: Run, metrics: dict[str, Any] | None = None) -> AutoencoderAbout:
    """Read and check everything. Raises RunError, RecipeError."""
    metrics = run.metrics if metrics is None else metrics
    read, labels, data = Metrics.of(run, CodeFigures.of, metrics), CodeLabels.of(run), ItemData.of(run)
    judged = read.splits[read.judged]
    with believed(run.metrics_json):
        limits = Limits.of(metrics)
        if (limits.base is None) != (judged.by_distance is None):
            raise ValueError
    items = data.items["test" if read.judged == "test" else "val"]
    found = AutoencoderAbout(
        **page.common_fields(run),
        labels=labels,
        metrics=read,
        data=data,
        limits=limits,
        scored=Scored.of(run, items, count=judged.items, distant=limits.base is not None),
        gallery=Gallery.of(run, labels, read.judged),
    )
    with believed(run.metrics_json):
        if found.anomalous.sum() != judged.anomalies.anomalies:
            raise ValueError
    return found


def html(about: AutoencoderAbout) -> str:
    """The page."""
    judged, labels, gallery, noun, anomalous = about.judged, about.labels, about.gallery, about.noun, about.anomalous
    normal = judged.anomalies.normal
    items = f"{noun}s"
    log = "photos" if labels.of_images else "rows"
    phases = page.phases_of(about, log, about.data.total("train"))
    rows, all_labels = _label_rows(about)
    return page.render(
        "autoencoder.html",
        about,
        {"kind": "label", "kinds": "labels", "item": noun, "items": items, "data": items},
        few=normal if normal < FEW else None,
        figure=spelled,
        missed=about.missed,
        psnr=decibels(about.missed.error / labels.values),
        of_anomalies=missed(about.scored.errors[anomalous]) if anomalous.any() else None,
        linear=about.metrics.splits[about.linear],
        better=_better(about.metrics.splits[about.linear]),
        codes=_codes(about),
        pictures={} if gallery is None else {name: _address(each) for name, each in gallery.pictures.items()},
        small=labels.of_images and max(labels.shape[:2]) < _SMALL,
        worst=_worst(about),
        map=None if gallery is None or not gallery.points else _map(gallery, labels.latent),
        machines=len(about.trained) < len(about.epochs),
        detections=_detections(about),
        least=1 / (about.limits.calibrated_on + 1),
        pattern=judged.checkerboard is not None and judged.checkerboard[0] > _PATTERN + max(judged.checkerboard[1], 0),
        labels=rows if all_labels > 1 else [],
        all_labels=all_labels,
        counts=_counts(about),
        parts=page.parts_of(
            about, phases, looking=f"looking at the {items}, split", noun=items,
            between="before and between: compiling, checkpoints",
        ),
        phases=phases,
        curves=_curves(about),
        found=page.findings_of(about.data, KINDS, _SERIOUS),
    )  # fmt: skip


def _better(judged: CodeFigures) -> float | None:
    """By which share less than PCA the network misses; None without PCA, or where that misses nothing."""
    pca = judged.rivals.get("PCA")
    return None if pca is None or not pca.error else 1 - judged.error / pca.error


def _codes(about: AutoencoderAbout) -> list[dict[str, Any]]:
    """The network's figures, and those of linear codes, for a table."""
    judged, values = about.metrics.splits[about.linear], about.labels.values
    found = [("kerastk", judged.error, about.data.total("train"))]
    found += [(printable(name), rival.error, rival.fitted_on) for name, rival in judged.rivals.items()]
    most = max(error for _, error, _ in found) or 1.0
    return [
        {
            "name": name,
            "error": error,
            "share": error / most,
            "psnr": decibels(error / values),
            "fitted_on": fitted,
        }
        for name, error, fitted in found
    ]


def _worst(about: AutoencoderAbout) -> list[dict[str, Any]]:
    """The items with the largest errors: what they are and, of images, their two pictures as data addresses."""
    if not about.labels.of_images:
        order = np.argsort(-about.scored.errors, kind="stable")[:WORST]
        found = [(*about.scored.items[each], float(about.scored.errors[each])) for each in order.tolist()]
        return [_named(path, label, error) for path, _, label, error in found]
    if about.gallery is None:
        return []
    cards = [_named(*each) for each in about.gallery.worst]
    picture = about.gallery.pictures["worst"]
    try:
        pixels = whole(picture.data)
    except PhotoError:
        return cards
    height, width = about.labels.shape[:2]
    for place, card in enumerate(cards):
        left = place * (width + GAP)
        parts = [pixels[top : top + height, left : left + width] for top in (0, height + GAP)]
        written = [to_png(part) if picture.format == "PNG" else to_webp(part) for part in parts]
        card["original"], card["made"] = (_address(Picture(each, picture.format, 1, 1)) for each in written)
    return cards


def _named(path: str, label: str, error: float) -> dict[str, Any]:
    return {
        "path": charts.short(printable(path), _LONGEST_PATH),
        "label": label,
        "error": error,
        "original": None,
        "made": None,
    }


def _address(picture: Picture) -> str:
    return f"data:image/{picture.format.lower()};base64,{base64.b64encode(picture.data).decode()}"


def _map(gallery: Gallery, latent: int) -> dict[str, Any]:
    """The codes as a picture, and a legend: name, colour and number of the points of each label."""
    points = gallery.points
    counts = Counter(label for _, _, label in points)
    if latent == 1:
        lines = {label: line / max(1, len(counts) - 1) for line, label in enumerate(sorted(counts))}
        points = [(x, lines[label], label) for x, _, label in points]
    coloured = [label for label, _ in counts.most_common(len(COLOURS))]
    groups = []
    if len(counts) > len(coloured):
        rest = [(x, y) for x, y, label in points if label not in coloured]
        groups.append(charts.Group("others", charts.GREY, rest))
    names = page.printable_names(gallery.labels)
    for label, colour in sorted(zip(coloured, COLOURS, strict=False)):
        of_label = [(x, y) for x, y, each in points if each == label]
        groups.append(charts.Group(names[label], colour, of_label))
    legend = [{"name": each.name, "colour": each.colour, "count": len(each.points)} for each in groups]
    picture = charts.scatter(groups, "Map of the codes")
    return {"picture": picture, "legend": legend if len(legend) > 1 else [], "points": len(points)}


def _detections(about: AutoencoderAbout) -> list[dict[str, Any]]:
    """What each score makes of anomalies: its figures, the false alarms to be expected, and the scores as a picture."""
    limits, scored, anomalous = about.limits, about.scored, about.anomalous
    scores: list[tuple[str, float | None, np.ndarray | None, Detection | None]] = [
        ("error", limits.threshold, scored.errors, about.judged.anomalies),
        (f"distance ({printable(limits.base or '')})", limits.distance, scored.distances, about.judged.by_distance),
    ]
    found = []
    for name, limit, values, figures in scores:
        if limit is None or values is None or figures is None:
            continue
        groups = [(values[~anomalous], 1), (values[anomalous], 2)]
        expected = None
        if about.metrics.judged == "test" and figures.normal:
            expected = false_alarm_interval(figures.normal, limits.calibrated_on, limits.false_alarms)
        picture = charts.histogram([each for each in groups if len(each[0])], limit, f"Histogram of the {name}")
        found.append({"name": name, "limit": limit, "figures": figures, "expected": expected, "picture": picture})
    return found


def _label_rows(about: AutoencoderAbout) -> tuple[list[dict[str, Any]], int]:
    """The mean error of each label with its 95 % interval, the largest first, and how many of its items are above the
    threshold; of very many labels the first. And how many there are."""
    scored, anomalous, by_label = about.scored, about.anomalous, {}
    for place, (_, _, label) in enumerate(scored.items):
        by_label.setdefault(label, []).append(place)
    of_labels = [(label, places, missed(scored.errors[places])) for label, places in by_label.items()]
    of_labels = sorted(of_labels, key=lambda each: -each[2].error)[:LABELS]
    most = max(each.interval[1] if each.interval else each.error for _, _, each in of_labels) or 1.0
    found = []
    for label, places, each in of_labels:
        low, high = each.interval or (each.error, each.error)
        found.append(
            {
                "name": label,
                "items": len(places),
                "missed": each,
                "above": float((scored.errors[places] > about.limits.threshold).mean()),
                "anomalous": bool(anomalous[places[0]]),
                "place": each.error / most,
                "bounds": (low / most, high / most),
            }
        )
    return found, len(by_label)


def _counts(about: AutoencoderAbout) -> list[str]:
    """The labels of all splits, the most frequent first; none where there is one, or too many."""
    totals: Counter[str] = Counter()
    for counts in about.data.counts.values():
        totals.update(counts)
    return [label for label, _ in totals.most_common()] if 1 < len(totals) <= LABELS else []


def _curves(about: AutoencoderAbout) -> dict[str, Markup]:
    # A machine's loss is a difference of free energies, which says nothing of how far it is.
    draw, draw_last = page.curve_drawer(about), page.curve_drawer(dataclasses.replace(about, epochs=about.trained))
    if draw is None or draw_last is None:
        return {}
    losses = [row.values[name] for row in about.trained for name in ("loss", "val_loss") if name in row.values]
    found = {
        "loss": draw_last("Loss over epochs", {"loss": 2, "val_loss": 1}, from_zero=min(losses, default=0) >= 0),
        "error": draw("Error over epochs", {"error": 2, "val_error": 1}, from_zero=True),
    }
    if any("val_nats" in row.values for row in about.trained):
        found["nats"] = draw("Reconstruction over epochs", {"nats": 2, "val_nats": 1})
        found["kl"] = draw("KL over epochs", {"kl": 2, "val_kl": 1}, from_zero=True)
    found["learning_rate"] = draw("Learning rate over epochs", {"learning_rate": 3}, from_zero=True, height=170)
    return found
