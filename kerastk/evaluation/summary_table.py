"""A network's summary as people read it: a table of its layers or stages, and lines of what they come to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kerastk.screen import printable

if TYPE_CHECKING:
    from kerastk.networks.summary import Row, Summary

_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))

_PER = {"image": "an image", "row": "a row", "step": "a word, spelled with one character"}


def table(rows: "Sequence[Row]", *, narrow: bool) -> Table:
    """A row for each; `narrow` leaves out what kind each is."""
    found = Table(box=None, pad_edge=False)
    for name in ("layer", "kind", "output", "parameters", "mult-adds", "sees", "stride"):
        if name != "kind" or not narrow:
            number = name not in ("layer", "kind", "output")
            found.add_column(name, justify="right" if number else "left", no_wrap=name != "layer", overflow="fold")
    for row in rows:
        cells = {
            # A model's file may be anybody's, and its names what a terminal would obey.
            "layer": Text(printable(row.name)),
            "kind": row.kind,
            "output": _sizes(row.shape),
            "parameters": f"{row.parameters:,}" if row.parameters else "",
            "mult-adds": _work(row),
            "sees": _both(row.receptive_field),
            "stride": _both(row.stride),
        }
        found.add_row(*(text for name, text in cells.items() if name != "kind" or not narrow))
    return found


def lines(title: str, summary: "Summary") -> list[str]:
    """What all layers come to."""
    inputs = ", ".join(_sizes(shape) for shape in summary.inputs.values())
    least = "at least " if summary.at_least else ""
    weights, size = f"{summary.parameters:,} parameters ({summary.trained:,} trained)", summary.bytes / 1e6
    found = [
        f"network  {title}: {inputs} -> {_sizes(summary.rows[-1].shape)}",
        f"weights  {weights}, {size:,.1f} MB in float32",
        f"work     {least}{amount(summary.macs)} multiply-adds ({amount(summary.flops)} FLOPs) for {_PER[summary.per]}",
    ]
    if summary.receptive_field is not None:
        found.append(
            f"field    a place of the last maps sees {_sizes(summary.receptive_field)} pixels of the image; places are "
            f"{_both(summary.stride)} pixels apart"
        )
    return found


def amount(number: int) -> str:
    """A count in four figures at most: 999, 25.6 k, 3.858 G."""
    for unit, letter in _UNITS:
        if number >= unit:
            return f"{number / unit:.4g} {letter}"
    return str(number)


def _work(row: "Row") -> str:
    if row.macs is None:
        return "?"
    text = amount(row.macs) if row.macs else ""
    return f">= {text or 0}" if getattr(row, "at_least", False) else text


def _sizes(shape: Sequence[int | None]) -> str:
    return " x ".join("-" if size is None else str(size) for size in shape) or "1"


def _both(pair: Sequence[float] | None) -> str:
    """Of height and width; once where they are equal."""
    if pair is None:
        return ""
    return " x ".join(f"{each:g}" for each in (pair[:1] if pair[0] == pair[1] else pair))
