"""Several runs beside each other: figures, recipes, curves, and whether a difference is more than chance."""

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from markupsafe import Markup

from kerastk.datasets.table import csv_cell
from kerastk.evaluation import charts
from kerastk.evaluation.metrics import mcnemar
from kerastk.evaluation.reading import believed
from kerastk.evaluation.report import SHOWN, About, environment, name, percent, series
from kerastk.run import Run
from kerastk.screen import printable

COLOURS = 8
# A difference that chance makes more rarely than this is called more than chance.
LEVEL = 0.05
# What a recipe says of the run's own name and place.
_OF_THE_RUN = ("name", "runs")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two runs (by number) on the test photos that both have: how many each alone classifies correctly.

    `chance` is how likely such a difference is where there is none (McNemar's exact test), corrected for the number of
    pairs; None where they share no test photos.
    """

    first: int
    second: int
    photos: int
    first_alone: int
    second_alone: int
    chance: float | None


def page(runs: Sequence[Run]) -> str:
    """The HTML of a comparison of complete runs.

    Raises:
        RunError: a run is not complete, or a file of it is missing or damaged.
    """
    abouts = [About.of(run) for run in runs]
    names = _names(runs)
    best = max(range(len(runs)), key=lambda number: abouts[number].judged.accuracy)
    found = pairs(abouts)
    template = environment().get_template("comparison.html")
    return template.render(
        title="Comparison of runs",
        abouts=abouts,
        names=names,
        best=best,
        pairs=found,
        pairs_shown=SHOWN,
        level=LEVEL,
        verdict=_verdict(abouts, names, best, found),
        colours=[1 + number % COLOURS for number in range(len(runs))],
        differences=_differences(abouts),
        same_data=len({about.data.sha256 for about in abouts}) == 1,
        curves=_curves(abouts),
    )


def pairs(abouts: Sequence[About]) -> list[Pair]:
    """Every two of the runs, compared on the test photos that both have."""
    tested = [_right(about) for about in abouts]
    found = []
    for first, second in combinations(range(len(abouts)), 2):
        common = sorted(tested[first].keys() & tested[second].keys())
        one, other = ([tested[number][key] for key in common] for number in (first, second))
        first_alone, second_alone, chance = mcnemar(one, other)
        found.append(Pair(first, second, len(common), first_alone, second_alone, chance if common else None))
    return _corrected(found)


def _right(about: About) -> dict[tuple[str, str], bool]:
    """Whether each test photo, by content and label, is classified correctly; nothing without a test split."""
    if "test" not in about.metrics.splits:
        return {}
    rows = about.run.predictions
    with believed(about.run.predictions_csv):
        if [row["truth"] for row in rows] != [csv_cell(label) for _, label in about.data.tested]:
            raise ValueError
        return {key: row["prediction"] == row["truth"] for key, row in zip(about.data.tested, rows, strict=True)}


def _corrected(found: list[Pair]) -> list[Pair]:
    """The pairs with Holm's correction: of many pairs, one differs by chance sooner (S. Holm 1979, SJS 6:65)."""
    order = sorted((pair.chance, number) for number, pair in enumerate(found) if pair.chance is not None)
    corrected, before = list(found), 0.0
    for place, (chance, number) in enumerate(order):
        before = max(before, min(1.0, chance * (len(order) - place)))
        corrected[number] = dataclasses.replace(found[number], chance=before)
    return corrected


def _verdict(abouts: Sequence[About], names: Sequence[str], best: int, found: Sequence[Pair]) -> Markup:
    """The comparison in a few sentences."""
    said = Markup("<b>{}</b> has the highest accuracy, <b>{}</b>.").format(
        name(names[best]), percent(abouts[best].judged.accuracy)
    )
    against: dict[str, list[str]] = {"more": [], "chance": [], "unknown": []}
    for pair in (pair for pair in found if best in (pair.first, pair.second)):
        kind = "unknown" if pair.chance is None else "more" if pair.chance < LEVEL else "chance"
        against[kind].append(names[pair.second if pair.first == best else pair.first])
    sentences = {
        "more": " On the same test photos, that is more than chance against {}.",
        "chance": " Against {} it may be chance.",
        "unknown": " With {} it shares no test photo.",
    }
    for kind, others in against.items():
        if others:
            said += Markup(sentences[kind]).format(Markup(", ").join(name(other) for other in others))
    return said


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names; with as much of their paths in front as it takes to tell them apart."""
    paths = [run.path.absolute().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(set(paths)):
            break
    return [printable(name) for name in names]


def _differences(abouts: Sequence[About]) -> list[dict[str, Any]]:
    """The fields in which the recipes are not all the same, with each run's value."""
    recipes = [dataclasses.asdict(about.recipe) for about in abouts]
    found = []
    for field in dict.fromkeys(field for recipe in recipes for field in recipe):
        values = [recipe.get(field) for recipe in recipes]
        if field not in _OF_THE_RUN and any(value != values[0] for value in values):
            shown = ["–" if value is None else printable(str(value)) for value in values]
            found.append({"name": field, "values": shown})
    return found


def _curves(abouts: Sequence[About]) -> dict[str, Markup]:
    if not any(row.epoch for about in abouts for row in about.epochs):
        return {}
    titles = {"val_cross_entropy": "Validation cross-entropy", "val_accuracy": "Validation accuracy"}
    found = {}
    for column, title in titles.items():
        lines = [
            charts.Line(series(about.epochs, column), 1 + number % COLOURS, number >= COLOURS)
            for number, about in enumerate(abouts)
        ]
        found[column] = charts.curves(lines, f"{title} over epochs", percent=column == "val_accuracy")
    return found
