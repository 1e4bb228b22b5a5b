"""What benchmarks that set kerastk beside others share: measuring what the ledger lacks, the report, the options.

As with `measuring`, only the standard library, click and kerastk's light half: what measures must stay small.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from measuring import Ledger, ProcessFailed, write_section

HERE = Path(__file__).resolve().parent

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A way on data with a seed. `place` says in the ledger which it is, `marks` of what, `setting` where it runs.

    `run` measures it and gives its rows.
    """

    name: str
    place: Row
    marks: Row
    setting: Row
    run: Callable[[], list[Row]]


def measure_missing(
    parts: Iterable[Part], ledger: Ledger, *, done: Callable[[Ledger, Row, Row], bool], shown: Callable[[Row], str]
) -> int:
    """Measure what the ledger does not hold yet; the number of parts that failed."""
    failures = 0
    for part in parts:
        if done(ledger, part.place, part.marks):
            continue
        click.echo(f"{time.strftime('%H:%M')} {part.name} ...", nl=False)
        try:
            rows = part.run()
        except ProcessFailed as error:
            click.echo(f" failed: {error}")
            failures += 1
            continue
        click.echo("".join(f" {shown(row)}" for row in rows))
        for row in rows:
            date = time.strftime("%Y-%m-%d")
            ledger.append({**part.place, **row, **part.marks, "date": date, "setting": part.setting})
    return failures


# The report.


def newest(rows: list[Row]) -> list[Row]:
    """The last row of each data set, way and seed."""
    return list({(row["data"], row["way"], row["seed"]): row for row in rows}.values())


def by_way(rows: list[Row]) -> dict[tuple[str, str], dict[int, Row]]:
    """Rows by (data, way), then by seed in ascending order."""
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault((row["data"], row["way"]), {})[row["seed"]] = row
    return found


def when_and_where(rows: list[Row]) -> str:
    """Dates, machines and versions, as the measurements recorded them."""
    dates = sorted({row["date"] for row in rows})
    settings = []
    for here in (row["setting"] for row in rows):
        packages = ", ".join(f"{name} {here[name]}" for name in ("python", "keras", "tensorflow", "kerastk"))
        settings.append(f"{here['cpu']}, {here['cores']} cores; {packages}")
    return " to ".join(dict.fromkeys([dates[0], dates[-1]])) + f"; {'; and '.join(dict.fromkeys(settings))}"


def judged(claim: str, holds: bool | None, found: str = "") -> str:
    """A claim with `holds`, `FAILS` or (None) `not decided` in front, and what was found behind."""
    verdict = "not decided" if holds is None else "holds" if holds else "FAILS"
    return f"{verdict}: {claim}" + (f" ({found})" if found else "")


def finish(
    rows: list[Row], ledger: Ledger, results: Path, *, section: str, report: Callable[[list[Row]], str], failures: int,
    trial: str | None,
) -> None:  # fmt: skip
    """Show the table, and write it where all went well; `trial` is the option by which this is only a try."""
    if not rows:
        raise click.ClickException(f"nothing is measured in {ledger.path.parent}.")
    text = report(rows)
    click.echo(text)
    if failures:
        raise click.ClickException(f"{failures} failed, so {results} is left as it is; start again to go on.")
    if trial is not None:
        click.echo(f"{trial}: {results} is left as it is")
        return
    write_section(results, section, text)
    click.echo(f"wrote {results}")


# Options.


def shared_folder() -> Path:
    """Where development data and weights lie."""
    return Path(os.environ.get("KERASTK_SHARED") or HERE.parent.parent / "shared")


def numbers(context: click.Context, option: click.Parameter, value: str) -> list[int]:
    """`0,1,2` as numbers."""
    try:
        return list(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"must be numbers with commas between, like 0,1,2; got {value!r}.") from None


def some_of(ways: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """The callback of an option that takes some of `ways` with commas between; they come in the order of `ways`."""

    def chosen(context: click.Context, option: click.Parameter, value: str) -> list[str]:
        given = [part.strip() for part in value.split(",")]
        unknown = [part for part in given if part not in ways]
        if unknown:
            raise click.BadParameter(f"must be of {', '.join(ways)}; got {unknown[0]!r}.")
        return [way for way in ways if way in given]

    return chosen
