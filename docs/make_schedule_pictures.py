"""Writes docs/schedules.md and docs/images/schedules.png from the table of schedules; a test compares the page."""

import io
from pathlib import Path

from kerastk.storage import write_atomic
from kerastk.training.schedules import SCHEDULES, Number, schedule

STEPS, WARMUP = 160, 16
HEAD = """# Schedules of the learning rate

Made from the code by `make docs`. Each follows a linear warm-up from 0, and is a share of the highest rate over the
steps behind it: t runs from 0 at the end of the warm-up to 1 at the end of the training. In the picture the warm-up
takes a tenth of the steps.

![A curve for each schedule](images/schedules.png)

| schedule | share of the highest rate at t | its numbers: default (from, to) | when to take it | source |
|---|---|---|---|---|
"""
TAIL = """
To lower the rate when the validation loss stops falling is no schedule: Keras's ReduceLROnPlateau needs an optimizer
with a plain number as its learning rate, and fails with any of these.
"""


def page() -> str:
    """The text of docs/schedules.md."""
    rows = []
    for name, row in SCHEDULES.items():
        numbers = "; ".join(f"`{key}` {_shown(number)}" for key, number in row.numbers.items()) or "none"
        rows.append(f"| `{name}` | {row.formula} | {numbers} | {row.use} | {row.source or '-'} |")
    return HEAD + "\n".join(rows) + "\n" + TAIL


def _shown(number: Number) -> str:
    default = number.default if isinstance(number.default, tuple) else (number.default,)
    return f"{', '.join(f'{part:g}' for part in default)} ({number.low:g}, {number.high:g})"


def picture() -> bytes:
    """The curves, each in a small field, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, fields = pyplot.subplots(2, -(-len(SCHEDULES) // 2), figsize=(10, 4.2), sharex=True, sharey=True)
    for field, name in zip(fields.flat, SCHEDULES, strict=True):
        curve = schedule(name, peak=1.0, total_steps=STEPS, warmup_steps=WARMUP)
        field.plot(range(STEPS), [float(curve(step)) for step in range(STEPS)], color="tab:blue")
        field.axvspan(0, WARMUP, color="0.92")
        field.set_title(name, fontsize=10)
        field.set_ylim(-0.03, 1.08)
        field.spines[["top", "right"]].set_visible(False)
    for field in fields[-1]:
        field.set_xlabel("step", fontsize=9)
    for field in fields[:, 0]:
        field.set_ylabel("share of highest rate", fontsize=9)
    figure.tight_layout()
    file = io.BytesIO()
    # Without the version of matplotlib, equal pictures are equal files.
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return file.getvalue()


if __name__ == "__main__":
    here = Path(__file__).parent
    write_atomic(here / "schedules.md", page())
    write_atomic(here / "images" / "schedules.png", picture())
