"""The report's charts as inline SVG, small and without a script; their colours are the page's, in light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

_WIDTH = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 20, 30
# Beyond so many classes a confusion matrix has no numbers; beyond so many, no names.
_NUMBERED, _NAMED = 16, 50
_LEVELS = 10
# Of a dot; and steps of a histogram.
_RADIUS, _STEPS = 4, 48
# The colour of what has none of its own.
GREY = 8


@dataclass(frozen=True)
class Line:
    """A curve: (x, y) points in pieces, and the number of its colour. A piece of one point is a dot."""

    pieces: list[list[tuple[float, float]]]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Group:
    """Points (x, y) from 0 to 1 under a name, and the number of their colour."""

    name: str
    colour: int
    points: list[tuple[float, float]]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, evenly spread."""
    from matplotlib.ticker import MaxNLocator

    if not high > low:
        low, high = low - 0.5, low + 0.5
    return [float(each) for each in MaxNLocator(wanted, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def curves(
    lines: Sequence[Line], title: str, *, percent: bool = False, from_zero: bool = False, height: int = 230,
    boundaries: Sequence[tuple[float, str]] = (), best: float | None = None,
) -> Markup:  # fmt: skip
    """Curves over epochs. `boundaries` are (epoch, name) of the phases that begin there, `best` the epoch to mark."""
    points = [point for line in lines for piece in line.pieces for point in piece]
    if not points:
        return Markup("")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    steps = ticks(0 if from_zero else min(ys), max(ys))
    if percent and max(ys) <= 1:
        steps = [step for step in steps if step <= 1 + 1e-9]
    first, last = min(xs), max(max(xs), min(xs) + 1)
    pad = 0.02 * (last - first)

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - first + pad) / (last - first + 2 * pad)

    def down(y: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (steps[-1] - y) / (steps[-1] - steps[0])

    parts = []
    for step in steps:
        label = f"{100 * step:g} %" if percent else f"{step:g}"
        parts.append(_line(_LEFT, down(step), _WIDTH - _RIGHT, down(step), "grid"))
        parts.append(_text(_LEFT - 6, down(step) + 4, label, "end"))
    whole = sorted({round(each) for each in ticks(first, last, 8) if first <= round(each) <= last})
    parts += [_text(across(each), height - 10, str(each), "middle") for each in whole]
    begun = [(epoch, short(name, 18)) for epoch, name in boundaries if epoch >= first]
    for number, (epoch, name) in enumerate(begun):
        if number:
            x = across(epoch - 0.5)
            parts += [
                _line(x, _TOP - 12, x, height - _BOTTOM, "boundary"),
                _text(x + 5, _TOP - 8, name, "start", "name"),
            ]
        elif len(begun) > 1 and across(begun[1][0] - 0.5) - across(first) < 7 * len(name):
            parts.append(_text(across(begun[1][0] - 0.5) - 5, _TOP - 8, name, "end", "name"))
        else:
            parts.append(_text(across(first) - 4, _TOP - 8, name, "start", "name"))
    if best is not None and best >= first:
        parts.append(_line(across(best), _TOP, across(best), height - _BOTTOM, "best"))
    for line in lines:
        style = f"line c{line.colour}" + (" dashed" if line.dashed else "")
        for piece in line.pieces:
            if len(piece) == 1:
                parts.append(_circle(across(piece[0][0]), down(piece[0][1]), 3.5, f"dot c{line.colour}"))
            elif piece:
                path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in piece)
                parts.append(Markup('<polyline class="{}" points="{}"/>').format(style, path))
    return _svg(_WIDTH, height, title, parts)


def reliability(bins: Sequence[tuple[int, int, float, float]], title: str, number: int = 15) -> Markup:
    """Accuracy over confidence in bins of (bin, photos, confidence, accuracy), and below how full the bins are.

    The diagonal is where the bars should end; a mark in each is its mean confidence.
    """
    left, top, side, below = 46, 10, 290, 40

    def across(x: float) -> float:
        return left + side * x

    def down(y: float) -> float:
        return top + side * (1 - y)

    floor = top + side + 34 + below
    parts = []
    for step in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line(left, down(step), left + side, down(step), "grid"))
        parts.append(_text(left - 6, down(step) + 4, f"{100 * step:g} %", "end"))
        parts.append(_text(across(step), top + side + 17, f"{100 * step:g} %", "middle"))
    most = max((photos for _, photos, _, _ in bins), default=1)
    for each, photos, confidence, accuracy in bins:
        x, width = across(each / number) + 1.5, side / number - 3
        tip = f"{photos} photos, confidence {100 * confidence:.1f} %, accuracy {100 * accuracy:.1f} %"
        tall = max(1.0, below * photos / most)
        shapes = [
            _rectangle(x, down(accuracy), width, side * accuracy, "bar", 1 if accuracy else 0),
            _line(x - 1.5, down(confidence), x + width + 1.5, down(confidence), "mark"),
            _rectangle(x, floor - tall, width, tall, "crowd", 1),
        ]
        parts.append(Markup("<g><title>{}</title>{}</g>").format(tip, Markup("").join(shapes)))
    parts.append(_line(across(0), down(0), across(1), down(1), "diagonal"))
    parts.append(_line(left, floor, left + side, floor, "grid"))
    parts.append(_text(left - 6, floor - below + 10, f"{most:,}", "end"))
    parts.append(_text(left - 6, floor, "0", "end"))
    parts.append(_text(across(0.5), floor + 16, "confidence (below: photos)", "middle"))
    return _svg(left + side + 20, floor + 22, title, parts)


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Markup:
    """Photos by truth (rows) and answer (columns), shaded by the share of the row's photos."""
    count = len(classes)
    named, numbered = count <= _NAMED, count <= _NUMBERED
    cell = 44 if count <= 8 else 32 if numbered else 16 if named else 420 / count
    longest = max((len(name) for name in classes), default=0)
    margin = 32 + 6.6 * min(longest, 16) if named else 24
    width = height = margin + cell * count + 8
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = [
        _rectangle(margin, margin, cell * count, cell * count, "paper", 1),
        _text(margin + cell * count / 2, 10, "answer", "middle", "name"),
        _turned(12, margin + cell * count / 2, "truth", "middle", "name"),
    ]
    if named:
        for number, name in enumerate(classes):
            place = margin + cell * (number + 0.5)
            parts.append(_text(margin - 6, place + 4, short(name, 16), "end", tip=name))
            if longest <= 3 and cell >= 32:
                parts.append(_text(place, margin - 6, name, "middle"))
            else:
                parts.append(_turned(place + 4, margin - 6, short(name, 16), "start", tip=name))
    rows, columns = np.nonzero(matrix)
    if numbered:
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            share, photos = shares[row, column], matrix[row, column]
            kind = "right" if row == column else "wrong"
            x, y = margin + cell * column, margin + cell * row
            tip = f"{classes[row]}, answered {classes[column]}: {photos} ({100 * share:.0f} %)"
            strong = " strong" if share > 0.45 else ""
            inside = [
                _rectangle(x + 1, y + 1, cell - 2, cell - 2, kind, 0.12 + 0.88 * share),
                _text(x + cell / 2, y + cell / 2 + 4, str(photos), "middle", f"count{strong}"),
            ]
            parts.append(Markup("<g><title>{}</title>{}</g>").format(tip, Markup("").join(inside)))
    else:
        parts += _shaded(shares, rows, columns, margin, cell)
    return _svg(width, height, title, parts)


def _shaded(shares: np.ndarray, rows: np.ndarray, columns: np.ndarray, margin: float, cell: float) -> list[Markup]:
    """The cells of a large matrix, as one path for each shade."""
    levels = np.ceil(shares[rows, columns] * _LEVELS).astype(int)
    # Cells smaller than a pixel overlap, so that a few photos among many are seen, too.
    side = max(1.0, 0.9 * cell)
    parts = []
    for kind, on_diagonal in (("right", True), ("wrong", False)):
        for level in range(1, _LEVELS + 1):
            chosen = (levels == level) & ((rows == columns) == on_diagonal)
            path = "".join(
                f"M{margin + cell * column:.1f} {margin + cell * row:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z"
                for row, column in zip(rows[chosen].tolist(), columns[chosen].tolist(), strict=True)
            )
            if path:
                opacity = 0.25 + 0.75 * level / _LEVELS
                parts.append(Markup('<path class="{}" opacity="{:.2f}" d="{}"/>').format(kind, opacity, path))
    return parts


def scatter(groups: Sequence[Group], title: str, *, side: int = 460) -> Markup:
    """Points of a plane without axes, a group over the one before; its name stands in its middle, unless it is grey."""
    inside = side - 2 * _RADIUS

    def at(place: float) -> str:
        return f"{_RADIUS + inside * place:.1f}"

    parts, names = [], []
    taken: list[tuple[float, float, float]] = []
    for group in groups:
        # A line of no length with a round end is a dot, in a few bytes.
        path = "".join(f"M{at(x)} {at(y)}h0" for x, y in group.points)
        dots = Markup('<path class="dots c{}" d="{}"/>').format(group.colour, path)
        parts.append(Markup("<g><title>{}</title>{}</g>").format(group.name, dots) if group.name else dots)
        if group.name and group.colour != GREY:
            said = short(group.name, 16)
            x, y = (_RADIUS + inside * place for place in _middle(group.points))
            # Of names that would lie over each other, the legend has the others.
            if all(abs(x - a) > 4.5 * (len(said) + size) or abs(y - b) > 16 for a, b, size in taken):
                taken.append((x, y, len(said)))
                names.append(_text(x, y + 5, said, "middle", "place"))
    return _svg(side, side, title, [*parts, *names])


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The point that the others are nearest to; a mean may lie where there is none."""
    places = np.array(points)
    distances = [float(np.hypot(*(places - place).T).sum()) for place in places]
    return points[int(np.argmin(distances))]


def histogram(groups: Sequence[tuple[np.ndarray, int]], limit: float, title: str, *, height: int = 230) -> Markup:
    """Which share of a group's values, given with its colour, lies in each of many steps; `limit` is marked.

    Of values that lie far beyond the limit and nearly all others, it is told how many there are.
    """
    values = np.concatenate([each for each, _ in groups])
    steps = ticks(float(values.min()), max(1.2 * limit, float(np.percentile(values, 99))), 7)
    edges = np.linspace(steps[0], steps[-1], _STEPS + 1)
    shares = [np.histogram(each, edges)[0] / max(1, len(each)) for each, _ in groups]
    levels = ticks(0, max(max(float(share.max()) for share in shares), 0.01), 4)
    floor = height - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - steps[0]) / (steps[-1] - steps[0])

    def down(share: float) -> float:
        return _TOP + (floor - _TOP) * (1 - share / levels[-1])

    parts = []
    for level in levels:
        parts.append(_line(_LEFT, down(level), _WIDTH - _RIGHT, down(level), "grid"))
        parts.append(_text(_LEFT - 6, down(level) + 4, f"{100 * level:g} %", "end"))
    parts += [_text(across(step), height - 10, f"{step:g}", "middle") for step in steps]
    for share, (_, colour) in zip(shares, groups, strict=True):
        tops = "".join(f"V{down(each):.1f}H{across(edges[place + 1]):.1f}" for place, each in enumerate(share.tolist()))
        path = f"M{across(edges[0]):.1f} {floor}{tops}V{floor}z"
        parts.append(Markup('<path class="area c{}" d="{}"/>').format(colour, path))
    beyond = int((values > edges[-1]).sum())
    parts.append(_line(across(limit), _TOP - 8, across(limit), floor, "limit"))
    left = across(limit) < _WIDTH / 2
    parts.append(_text(across(limit) + (5 if left else -5), _TOP - 2, "threshold", "start" if left else "end", "name"))
    if beyond:
        parts.append(_text(_WIDTH - _RIGHT, floor - 6, f"{beyond:,} further right", "end"))
    return _svg(_WIDTH, height, title, parts)


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" height="{:.0f}" role="img"><title>{}</title>{}</svg>'
    ).format(width, height, width, height, title, Markup("").join(parts))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, content: str, anchor: str, kind: str = "tick", tip: str = "") -> Markup:
    text = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return text.format(kind, x, y, anchor, _tipped(content, tip))


def _turned(x: float, y: float, content: str, anchor: str, kind: str = "tick", tip: str = "") -> Markup:
    """A text that is read from below."""
    text = Markup('<text class="{}" transform="translate({:.1f} {:.1f}) rotate(-90)" text-anchor="{}">{}</text>')
    return text.format(kind, x, y, anchor, _tipped(content, tip))


def _tipped(content: str, tip: str) -> Markup:
    return Markup("<title>{}</title>{}").format(tip, content) if tip and tip != content else escape(content)


def _circle(x: float, y: float, radius: float, kind: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(kind, x, y, radius)


def _rectangle(x: float, y: float, width: float, height: float, kind: str, opacity: float) -> Markup:
    shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" opacity="{:.2f}"/>')
    return shape.format(kind, x, y, max(0.0, width), max(0.0, height), opacity)


def short(name: str, longest: int) -> str:
    """A name in at most so many characters; its end often tells more than its middle."""
    if len(name) <= longest:
        return name
    end = longest // 3
    return f"{name[: longest - end - 1]}…{name[-end:]}"
