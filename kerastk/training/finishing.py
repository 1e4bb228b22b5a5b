"""The end of a run: what it has learned is measured and written, and with it the run is complete."""

import shlex
import shutil
from typing import Any

from kerastk import tasks
from kerastk.evaluation import report as pages
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.training.callbacks import Best, Last
from kerastk.training.device import set_precision
from kerastk.training.fitting import Fitting
from kerastk.training.phases import release
from kerastk.training.plan import Plan
from kerastk.training.signals import dispensable
from kerastk.training.tensorboard import Events


def finish(plan: Plan, fitting: Fitting, run: Run, events: Events, screen: Screen) -> dict[str, Any]:
    """Write the best model, its answers, the report and the figures, these last: with them the run is complete."""
    set_precision(plan.model, "float32")
    release(plan.model)
    # Not an index: a phase that stopped early leaves a gap in the numbers.
    rows = {row["epoch"]: row for row in fitting.rows.rows}
    ended = {} if fitting.ended is None else {"ended": str(fitting.ended) or "by Ctrl-C"}
    kept = {"best": _described(fitting.best, rows, fitting)}
    if fitting.last is not None:
        kept["last"] = _described(fitting.last, rows, fitting)
        fitting.last.restore()
        run.write_last(plan.model)
        fitting.best.restore()
    judged = tasks.of(plan.recipe).conclude(plan, fitting, run, events, screen)
    metrics = {"format": 1, **ended, **kept, **judged}
    splits = [split for split in (plan.data.train, plan.data.val, plan.data.test) if split is not None]
    metrics["seconds"] = {
        "looking": plan.looking_seconds,
        "training": fitting.seconds,
        "all": fitting.rows.spent,
        "decoding": sum(split.decoding for split in splits),
    }
    report(run, metrics, screen)
    run.write_metrics(metrics)
    shutil.rmtree(run.checkpoint)
    return metrics


def report(run: Run, metrics: dict[str, Any] | None, screen: Screen) -> None:
    """Write report.html; `metrics` where metrics.json is not written yet.

    It comes before metrics.json, so that no complete run is without one: where the disk is full the run is not
    complete, and a resume does both.
    """
    with dispensable(screen.warn, f"no report; `kerastk report {shlex.quote(str(run.path))}` tries again"):
        run.write_report(pages.page(run, metrics))


def _described(kept: Best | Last, rows: dict[int, dict[str, Any]], fitting: Fitting) -> dict[str, Any]:
    """A kept model as metrics.json tells of it."""
    row = rows[kept.epoch]
    return {
        **{key: row[key] for key in ("epoch", "phase", fitting.validation.monitor)}, "temperature": kept.temperature
    }  # fmt: skip
