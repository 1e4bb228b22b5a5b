"""What the pages about all kinds of runs have in common: texts, tables and curves as the templates take them."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

import kerastk
from kerastk.evaluation import charts
from kerastk.evaluation.metrics import interval
from kerastk.evaluation.reading import Data, Environment, Epoch, Metrics, epochs
from kerastk.recipe import Recipe, dump
from kerastk.run import Run
from kerastk.screen import duration, printable

# Rows of a table that are shown at once; the others open on a click.
SHOWN = 20
# Characters of a name; longer ones have only their beginning and end.
LONGEST_NAME = 42
_MOST_PATHS = 3
# Between a number and its unit: a narrow space that does not break.
NARROW = "\u202f"


@dataclass(frozen=True, kw_only=True)
class About:
    """All that a page about one run is made of; each task's has labels and figures of its own.

    For a comparison each says, too, by what `measure` of which `items` it is judged, what `network` answers, which
    further figures a table shows (`columns`) and which columns of the log are drawn (`compared`).
    """

    run: Run
    recipe: Recipe
    labels: Any
    metrics: Metrics
    data: Data
    environment: Environment
    epochs: list[Epoch]

    @property
    def judged(self) -> Any:
        """The figures of the split that the run is judged by."""
        return self.metrics.splits[self.metrics.judged]

    def judged_on(self, count: int) -> str:
        """How many items the run is judged by, and of which split if that is not the test."""
        return counted(count) if self.metrics.judged == "test" else f"{counted(count)} {self.metrics.judged}"


def common_fields(run: Run) -> dict[str, Any]:
    """The fields of `About` that are read alike for every task. Raises RunError, RecipeError."""
    return {"run": run, "recipe": run.recipe, "environment": Environment.of(run), "epochs": epochs(run)}


def render(template: str, about: About, terms: Mapping[str, str], **values: Any) -> str:
    """The HTML of a page about one run; `terms` are what is counted, of what kinds it is, and what the data are."""
    values = {
        "about": about,
        "judged": about.judged,
        "metrics": about.metrics,
        "split": about.metrics.judged,
        "title": about.run.path.absolute().name,
        "terms": terms,
        "limit": SHOWN,
        "last_was_best": about.metrics.epoch > 0 and [about.metrics.epoch] == [row.epoch for row in about.epochs[-1:]],
        "recipe": printable_lines(dump(about.recipe)),
        **values,
    }
    return environment().get_template(template).render(values)


def environment() -> jinja2.Environment:
    """Templates that escape whatever is put into them."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("kerastk.evaluation"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "name": name, "percent": percent, "duration": duration, "shown": printable, "points": points, "day": day,
        "count": counted,
    }  # fmt: skip
    made.globals |= {"version": kerastk.__version__, "reliability": charts.reliability}
    return made


def name(text: str) -> Markup:
    """The name of a class or run; a long one shortened, and whole where one points at it; – where it is empty."""
    whole = printable(text) or "–"
    shown = charts.short(whole, LONGEST_NAME)
    return escape(whole) if shown == whole else Markup('<span title="{}">{}</span>').format(whole, shown)


def percent(share: float, digits: int = 1) -> str:
    """A share as it is read: 93.5 %."""
    return f"{100 * share:.{digits}f}{NARROW}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{signed(difference)} points"


def signed(difference: float) -> str:
    """A difference of shares in hundredths, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def counted(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}".replace(",", NARROW)


def day(started: str) -> str:
    """The time in environment.json without its seconds; as it stands where it is none."""
    try:
        return f"{datetime.datetime.fromisoformat(started):%Y-%m-%d %H:%M}"
    except ValueError:
        return printable(started[:40])


def printable_lines(text: str) -> str:
    """Lines of which none holds what is not printable."""
    return "\n".join(printable(line) for line in text.splitlines())


def printable_names(names: Iterable[str]) -> list[str]:
    """Names of which none holds what is not printable."""
    return [printable(name) for name in names]


def phases_of(about: About, noun: str, items: int) -> list[dict[str, Any]]:
    """Each phase: epochs, seconds, how many of these it waited for data, and `items` a second; an epoch has so many."""
    found = []
    for name in dict.fromkeys(row.phase for row in about.epochs):
        rows = [row for row in about.epochs if row.phase == name]
        seconds = sum(row.values.get("seconds", 0.0) for row in rows)
        rates = [rate for row in rows if (rate := row.values.get(f"{noun}_per_second", 0.0)) > 0]
        waiting = sum(_waited(row, row.values.get(f"{noun}_per_second", 0.0), items) for row in rows)
        found.append(
            {
                "name": printable(name),
                "epochs": sum(row.epoch > 0 for row in rows),
                "seconds": seconds,
                "waiting": min(waiting, seconds),
                "rate": float(np.median(rates)) if rates else None,
            }
        )
    return found


def _waited(row: Epoch, rate: float, items: int) -> float:
    """Seconds that an epoch over so many items stood still for want of them."""
    trained = min(row.values.get("seconds", 0.0), items / rate) if rate > 0 else 0.0
    return trained * row.values.get("wait_share", 0.0)


def parts_of(about: About, phases: Sequence[dict[str, Any]], *, looking: str, noun: str, between: str) -> list[dict]:
    """Where the time went: name, seconds and colour of each part. `looking` and `between` say what was done then."""
    seconds = about.metrics.seconds
    trained = sum(row["seconds"] for row in phases)
    parts = [(looking, seconds.get("looking", 0.0), 5)]
    for number, row in enumerate(phases):
        parts.append((f"{row['name']}: computing", row["seconds"] - row["waiting"], 1 + number % 4))
        parts.append((f"{row['name']}: waiting for {noun}", row["waiting"], 7))
    parts.append((between, seconds.get("training", trained) - trained, 6))
    parts.append(("judging and writing", seconds.get("all", 0.0) - seconds.get("training", 0.0), 8))
    parts = [(name, spent, colour) for name, spent, colour in parts if spent > 0]
    total = sum(spent for _, spent, _ in parts)
    return [{"name": name, "seconds": spent, "share": spent / total, "colour": colour} for name, spent, colour in parts]


def series(rows: Sequence[Epoch], name: str) -> list[list[tuple[float, float]]]:
    """A column of the log as (epoch, value) in one piece for each phase."""
    pieces: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if name in row.values:
            pieces.setdefault(row.phase, []).append((float(row.epoch), row.values[name]))
    return list(pieces.values())


def curve_drawer(about: About) -> Callable[..., Markup] | None:
    """What draws columns of a run's log as `charts.curves` does, with its phases and its best epoch; None where there
    are no epochs.

    It takes a title and, by column, the number of the colour; that of training, `2`, is dashed.
    """
    rows = about.epochs
    if not any(row.epoch for row in rows):
        return None
    starts: dict[str, int] = {}
    for row in rows:
        starts.setdefault(row.phase, row.epoch)
    boundaries = [(float(epoch), printable(name)) for name, epoch in starts.items()]

    def draw(title: str, columns: Mapping[str, int], **options: Any) -> Markup:
        lines = []
        for each, colour in columns.items():
            # What was solved before the first epoch has figures, but no learning rate.
            drawn = [row for row in rows if row.epoch] if each == "learning_rate" else rows
            lines.append(charts.Line(series(drawn, each), colour, dashed=colour == 2))
        return charts.curves(lines, title, boundaries=boundaries, best=float(about.metrics.epoch), **options)

    return draw


def class_rows(counts: Iterable[tuple[str, int, int, int]], trained: Mapping[str, int]) -> list[dict[str, Any]]:
    """Recall and precision of each class with their intervals, the weakest first.

    `counts` are (name, right answers, items of the class, answers of the class), `trained` the items it was trained on.
    """
    found = [
        {
            "name": name,
            "hits": hits,
            "items": items,
            "answered": answered,
            "trained": trained.get(name, 0),
            "recall": hits / items if items else 0.0,
            "recall_95": interval(hits, items),
            "precision": hits / answered if answered else 0.0,
            "precision_95": interval(hits, answered),
            "f1": 2 * hits / (items + answered) if items + answered else 0.0,
        }
        for name, hits, items, answered in counts
    ]
    return sorted(found, key=lambda row: (not row["items"], row["f1"]))


def weakest_of(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The class of `class_rows` of which the smallest share is found; None where there is none to be found."""
    return min((row for row in rows if row["items"]), key=lambda row: row["recall"], default=None)


def findings_of(data: Data, kinds: Mapping[str, tuple[str, bool]], serious: Iterable[str]) -> list[dict[str, Any]]:
    """What was found in the data, by kind: how often, whether it was set aside, a few of the files.

    `kinds` say what a kind means, and in which order they come; `serious` are those that may spoil a run.
    """
    aside = Counter(kind for kind, _, _ in data.set_aside)
    by_kind: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for kind, paths, text in dict.fromkeys([*data.findings, *data.set_aside]):
        by_kind.setdefault(kind, []).append((paths, text))
    order = {kind: place for place, kind in enumerate(kinds)}
    found: list[dict[str, Any]] = []
    for kind in sorted(by_kind, key=lambda each: order.get(each, len(order))):
        examples = [
            {"paths": " = ".join(printable_names(paths[:_MOST_PATHS])), "text": printable(text)}
            for paths, text in by_kind[kind][:_MOST_PATHS]
        ]
        meaning = kinds[kind][0] if kind in kinds else printable(kind)
        found.append(
            {
                "kind": meaning,
                "serious": kind in serious,
                "count": len(by_kind[kind]),
                "aside": aside[kind],
                "examples": examples,
            }
        )
    return found
