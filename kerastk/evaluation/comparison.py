"""Several runs beside each other: figures, recipes, curves, and whether a difference is more than chance."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kerastk.errors import RunError
from kerastk.evaluation import charts
from kerastk.evaluation.autoencoder_about import AutoencoderAbout, spelled
from kerastk.evaluation.page import SHOWN, About, environment, name, percent, series
from kerastk.evaluation.pairs import (
    RESAMPLES,
    ItemPair,
    Pair,
    SentencePair,
    item_pairs,
    photo_pairs,
    sentence_pairs,
)
from kerastk.evaluation.reading import Epoch
from kerastk.evaluation.report import about
from kerastk.evaluation.tag_report import TagAbout
from kerastk.run import Run
from kerastk.screen import printable

COLOURS = 8
# A difference that chance makes more rarely than this is called more than chance.
LEVEL = 0.05
# What a recipe says of the run's own name and place.
_OF_THE_RUN = ("name", "runs")


@dataclasses.dataclass(frozen=True)
class Score:
    """What a run is judged by, as text, and where it and its interval lie on a line from 0 to 1."""

    value: float
    text: str
    interval: tuple[str, str]
    place: float
    bounds: tuple[float, float]


def page(runs: Sequence[Run]) -> str:
    """The HTML of a comparison of complete runs.

    Raises:
        RunError: a run is not complete, a file of it is missing or damaged, or the runs have no figure in common.
    """
    abouts = [about(run) for run in runs]
    _check_comparable(abouts)
    names = _names(runs)
    of_errors, of_text = isinstance(abouts[0], AutoencoderAbout), isinstance(abouts[0], TagAbout)
    scores = _errors(abouts) if of_errors else [_share(each) for each in abouts]
    best = (min if of_errors else max)(range(len(runs)), key=lambda number: scores[number].value)
    found = item_pairs(abouts) if of_errors else sentence_pairs(abouts) if of_text else photo_pairs(abouts)
    data = abouts[0].noun if of_errors else "sentence" if of_text else "photo"
    said = f"has the {'lowest' if of_errors else 'highest'} {abouts[0].measure}"
    template = environment().get_template("comparison.html")
    return template.render(
        title="Comparison of runs",
        abouts=abouts,
        names=names,
        scores=scores,
        best=best,
        heads=_heads(abouts) if of_errors else list(abouts[0].columns),
        of_errors=of_errors,
        anomalies=of_errors and any(each.judged.anomalies.anomalies for each in abouts),
        measure=abouts[0].measure,
        data=data,
        resamples=RESAMPLES,
        pairs=found,
        pairs_shown=SHOWN,
        level=LEVEL,
        verdict=_verdict(names, best, f"{said}, <b>{scores[best].text}</b>.", found, data),
        colours=[1 + number % COLOURS for number in range(len(runs))],
        differences=_differences(abouts),
        same_data=all(about.data.content == abouts[0].data.content for about in abouts),
        curves=_curves(abouts),
    )


def _share(about: About) -> Score:
    share, (low, high) = about.judged.score, about.judged.interval
    return Score(share, percent(share), (percent(low), percent(high)), share, (low, high))


def _errors(abouts: Sequence[AutoencoderAbout]) -> list[Score]:
    """The mean errors of normal items; the line is as long as the largest of them takes."""
    found = [(each.missed.error, each.missed.interval or (each.missed.error,) * 2) for each in abouts]
    most = max(high for _, (_, high) in found) or 1.0
    return [
        Score(error, spelled(error), (spelled(low), spelled(high)), error / most, (low / most, high / most))
        for error, (low, high) in found
    ]


def _heads(abouts: Sequence[About]) -> list[str]:
    """The further figures that any of the runs has."""
    return [head for head in abouts[0].columns if any(each.columns[head] != "–" for each in abouts)]


def _check_comparable(abouts: Sequence[About]) -> None:
    """Refuse runs that are judged by different figures, or by the same of items that are not measured alike."""
    kinds: dict[tuple[type, str, str], About] = {}
    for each in abouts:
        kinds.setdefault((type(each), each.measure, each.items), each)
    if len(kinds) > 1:
        shown = ", ".join(f"{each.run.path.name} by {each.measure} of {each.items}" for each in kinds.values())
        raise RunError(f"runs are compared by one figure; these are judged by several: {shown}.")


def _verdict(
    names: Sequence[str], best: int, what: str, found: Sequence[Pair | SentencePair | ItemPair], data: str
) -> Markup:
    """The comparison in a few sentences; `what` is what the best has."""
    said = Markup("<b>{}</b> {}").format(name(names[best]), Markup(what))
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


def _drawn(about: About) -> list[Epoch]:
    """The epochs whose figures are of the whole network."""
    return about.trained if isinstance(about, AutoencoderAbout) else about.epochs


def _curves(abouts: Sequence[About]) -> dict[str, Markup]:
    if not any(row.epoch for about in abouts for row in about.epochs):
        return {}
    found = {}
    for column, title in abouts[0].compared.items():
        lines = [
            charts.Line(series(_drawn(each), column), 1 + number % COLOURS, number >= COLOURS)
            for number, each in enumerate(abouts)
        ]
        percent = not column.endswith(("loss", "entropy", "error"))
        found[title] = charts.curves(lines, f"{title} over epochs", percent=percent)
    return found
