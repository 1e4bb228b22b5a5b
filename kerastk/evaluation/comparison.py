"""Several runs beside each other: figures, recipes, curves, and whether a difference is more than chance."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kerastk.errors import RunError
from kerastk.evaluation import charts
from kerastk.evaluation.page import SHOWN, About, environment, name, percent, series
from kerastk.evaluation.pairs import RESAMPLES, Pair, SentencePair, photo_pairs, sentence_pairs
from kerastk.evaluation.report import about
from kerastk.evaluation.tag_report import TagAbout
from kerastk.run import Run
from kerastk.screen import printable

COLOURS = 8
# A difference that chance makes more rarely than this is called more than chance.
LEVEL = 0.05
# What a recipe says of the run's own name and place.
_OF_THE_RUN = ("name", "runs")


def page(runs: Sequence[Run]) -> str:
    """The HTML of a comparison of complete runs.

    Raises:
        RunError: a run is not complete, a file of it is missing or damaged, or the runs have no figure in common.
    """
    abouts = [about(run) for run in runs]
    _check_comparable(abouts)
    names = _names(runs)
    best = max(range(len(runs)), key=lambda number: abouts[number].judged.score)
    of_text = isinstance(abouts[0], TagAbout)
    found = sentence_pairs(abouts) if of_text else photo_pairs(abouts)
    data = "sentence" if of_text else "photo"
    template = environment().get_template("comparison.html")
    return template.render(
        title="Comparison of runs",
        abouts=abouts,
        names=names,
        best=best,
        measure=abouts[0].measure,
        data=data,
        resamples=RESAMPLES,
        pairs=found,
        pairs_shown=SHOWN,
        level=LEVEL,
        verdict=_verdict(abouts, names, best, found, data),
        colours=[1 + number % COLOURS for number in range(len(runs))],
        differences=_differences(abouts),
        same_data=all(about.data.content == abouts[0].data.content for about in abouts),
        curves=_curves(abouts),
    )


def _check_comparable(abouts: Sequence[About]) -> None:
    """Refuse runs that are judged by different figures."""
    kinds: dict[tuple[type, str], About] = {}
    for each in abouts:
        kinds.setdefault((type(each), each.measure), each)
    if len(kinds) > 1:
        shown = ", ".join(f"{each.run.path.name} by {each.measure} of {each.items}" for each in kinds.values())
        raise RunError(f"runs are compared by one figure; these are judged by several: {shown}.")


def _verdict(
    abouts: Sequence[About], names: Sequence[str], best: int, found: Sequence[Pair | SentencePair], data: str
) -> Markup:
    """The comparison in a few sentences."""
    said = Markup("<b>{}</b> has the highest {}, <b>{}</b>.").format(
        name(names[best]), abouts[best].measure, percent(abouts[best].judged.score)
    )
    against: dict[str, list[str]] = {"more": [], "chance": [], "unknown": []}
    for pair in (pair for pair in found if best in (pair.first, pair.second)):
        kind = "unknown" if pair.chance is None else "more" if pair.chance < LEVEL else "chance"
        against[kind].append(names[pair.second if pair.first == best else pair.first])
    sentences = {
        "more": f" On the same test {data}s, that is more than chance against {{}}.",
        "chance": " Against {} it may be chance.",
        "unknown": f" With {{}} it shares no test {data}.",
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
    found = {}
    for column, title in abouts[0].compared.items():
        lines = [
            charts.Line(series(each.epochs, column), 1 + number % COLOURS, number >= COLOURS)
            for number, each in enumerate(abouts)
        ]
        found[title] = charts.curves(lines, f"{title} over epochs", percent=not column.endswith(("loss", "entropy")))
    return found
