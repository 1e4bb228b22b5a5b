"""All that kerastk prints while it works: tables on a terminal, plain lines elsewhere."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kerastk.datasets.check import Look
from kerastk.datasets.sequence_check import SentenceLook

if TYPE_CHECKING:
    import keras

    from kerastk.evaluation.listing import Listed
    from kerastk.run import Run
    from kerastk.training.lr_find import RangeTest
    from kerastk.training.phases import Phase, Probe
    from kerastk.training.plan import Plan


def printable(text: str) -> str:
    """The text for a terminal or a picture: what is not printable (a name need not be UTF-8) as escapes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _shown(text: str) -> str:
    return escape(printable(text))


SOLVED = {"logistic": "logistic regression", "svm": "linear support vector machine", "knn": "nearest neighbours"}


class Screen:
    """Where a run shows itself. With `show` false nothing is printed."""

    def __init__(self, show: bool = True):
        self.console = Console(quiet=not show, soft_wrap=not Console().is_terminal, highlight=False)
        self._progress: Progress | None = None
        self._epochs = 0
        self._columns: tuple[tuple[str, str], ...] = ()
        self._headed = False

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar while photos pass; gives the function to report (done, total) to."""
        if not self.console.is_terminal or self.console.quiet:
            yield lambda done, total: None
            return
        with _bar(self.console) as bar:
            job = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(job, completed=done, total=total)

    def plan(self, plan: "Plan") -> None:
        """What will be trained on what."""
        import keras

        manifest, recipe = plan.data.manifest, plan.recipe
        names = [name for name in manifest.splits if manifest.splits[name]]
        counts = {name: manifest.counts(name) for name in names}
        table = Table(box=None, pad_edge=False)
        table.add_column(plan.data.label)
        for name in names:
            table.add_column(name, justify="right")
        labels = plan.data.labels
        shown = labels if len(labels) <= 30 else labels[:27]
        for label in shown:
            table.add_row(_shown(label) or "(no label)", *(str(counts[name][label]) for name in names))
        if len(shown) < len(labels):
            table.add_row(f"... {len(labels) - len(shown)} more", *("" for _ in names))
        table.add_row("all", *(str(sum(counts[name].values())) for name in names), style="bold")
        self.console.print(table)
        for note in (*manifest.notes, *plan.notes):
            self.console.print(f"note     {_shown(note)}")
        self._findings_line(plan.data.look, len(manifest.set_aside))
        self._epochs = sum(phase.epochs for phase in plan.phases)
        self._columns = plan.columns
        self.console.print(f"network  {_shown(plan.network)}; {plan.model.count_params():,} parameters")
        for phase in plan.phases:
            self._phase(phase, plan)
        self.console.print(
            f"device   {plan.device} ({keras.backend.backend()}), {recipe.precision}: {_shown(plan.precision_reason)}"
        )

    def _phase(self, phase: "Phase | Probe", plan: "Plan") -> None:
        what = {"head": "the head", "all": "everything", "rbm": "a Boltzmann machine"}.get(phase.unfreeze)
        what = what or (
            "the head and the top stage" if phase.unfreeze == 1 else f"the head and the top {phase.unfreeze} stages"
        )
        how = f"{plan.trainable[phase.name]:,} parameters, "
        if not phase.epochs:
            how = SOLVED[phase.kind] if phase.kind == "knn" else how + SOLVED[phase.kind]
        else:
            rate = "of a range test" if phase.learning_rate is None else f"{phase.learning_rate:g}"
            how += f"{phase.epochs} epochs, learning rate {rate}"
        self.console.print(f"phase    {phase.name}: {what}, {how}")
        choice = plan.choices.get(phase.name)
        if choice is None:
            return
        if choice.point is None:
            self.console.print(f"cache    none for {phase.name}: {_shown(choice.reason)}")
            return
        photos = len(plan.data.train.photos)
        shape = " x ".join(map(str, choice.point.tensor.shape[1:]))
        self.console.print(
            f"cache    for {phase.name} at {choice.point.name} ({shape}, {choice.point.dtype}): "
            f"{_count(choice.views, 'view')} of {photos:,} photos, {choice.size / 1e6:,.0f} MB; "
            f"{100 * choice.frozen_share:.0f} % of the network's work is done once"
        )

    def ranged(self, result: "RangeTest") -> None:
        """What a range test has found."""
        self.console.print(f"rate     {result.suggestion:.2g}, by a range test of {len(result.rates)} batches")

    def solved(self, kind: str, note: str, *, rows: int, passed: float, solved: float) -> None:
        """The head is fitted."""
        self.console.print(
            f"probe    {rows:,} feature vectors in {duration(passed)}, {SOLVED[kind]} ({note}) in {solved:.1f}s"
        )

    def cached(self, *, computed: bool, seconds: float, with_cache: float | None, without: float | None) -> None:
        """The activations of a phase are there."""
        how = f"made in {duration(seconds)}" if computed else "all there already"
        expected = ""
        if with_cache is not None:
            expected = f"; an epoch should take about {duration(with_cache)}, without it {duration(without)}"
        self.console.print(f"cache    {how}{expected}")

    def _findings_line(self, look: Look | SentenceLook, set_aside: int) -> None:
        if look.findings:
            counts = Counter(finding.kind for finding in look.findings)
            parts = [f"{counts[kind]} {look.kinds[kind][0]}" for kind in look.kinds if counts[kind]]
            aside = f"{set_aside} files set aside (data.json lists all)" if set_aside else "data.json lists all"
            self.console.print(f"data     {'; '.join(parts)}; {aside}")

    def photos(self, look: Look) -> None:
        """What `kerastk check` says of photos."""
        counts = Counter(photo.label for photo in look.photos)
        sizes = sorted(counts[name] for name in look.source.classes)
        self.console.print(
            f"{len(look.photos)} readable photos in {len(sizes)} classes of {sizes[0]} to {sizes[-1]}; "
            f"{len(look.bad)} unreadable"
        )
        self._findings(look)

    def sentences(self, look: SentenceLook) -> None:
        """What `kerastk check` says of tagged sentences."""
        for name, file in look.files.items():
            facts = look.facts[name]
            self.console.print(
                f"{_shown(file.path)}: {_count(facts.sentences, 'sentence')}, {_count(facts.tokens, 'word')}, "
                f"{_shown(file.described)}, {file.scheme}"
            )
        table = Table(box=None, pad_edge=False)
        table.add_column("label")
        for name in look.facts:
            table.add_column(name, justify="right")
        for label in sorted({label for facts in look.facts.values() for label in facts.labels}):
            table.add_row(_shown(label), *(str(facts.labels.get(label, 0)) for facts in look.facts.values()))
        for head, field in (("unseen words", "unseen_words"), ("unseen spans", "unseen_spans")):
            shares = [getattr(facts, field) for facts in look.facts.values()]
            if any(share is not None for share in shares):
                table.add_row(head, *("" if share is None else f"{100 * share:.1f} %" for share in shares))
        self.console.print(table)
        self._findings(look)

    def _findings(self, look: Look | SentenceLook) -> None:
        if not look.findings:
            self.console.print("no findings")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("finding", "files", "for example"):
            table.add_column(column, overflow="fold")
        by_kind: dict[str, list] = {}
        for finding in look.findings:
            by_kind.setdefault(finding.kind, []).append(finding)
        for kind, found in by_kind.items():
            first = found[0]
            example = " = ".join(first.paths[:2]) + (f" ({first.text})" if first.text else "")
            table.add_row(look.kinds[kind][0], str(len(found)), _shown(example))
        self.console.print(table)

    def started(self, run: "Run", state: dict[str, Any] | None) -> None:
        """The run folder is there; `state` is that of the checkpoint that the run goes on from."""
        self.console.print(f"run      {_shown(str(run.path))}")
        if state is not None:
            step = f" and {_count(state['step'], 'batch', 'batches')}" if state["step"] else ""
            self.console.print(f"resumed  after epoch {state['epoch']}{step}")
        self.console.print(f"watch    tensorboard --logdir {_shown(str(run.path.parent))}")

    def batches(self) -> "keras.callbacks.Callback":
        """A callback that moves the bar inside an epoch, on a terminal."""
        import keras

        screen = self

        class Batches(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
                if screen.console.is_terminal and not screen.console.quiet:
                    screen._progress = _bar(screen.console)
                    screen._progress.start()
                    self.job = screen._progress.add_task(f"epoch {epoch + 1}", total=self.params.get("steps"))

            def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
                if screen._progress is not None:
                    text = f"epoch, loss {logs['loss']:.3f}"
                    screen._progress.update(self.job, advance=1, description=text)

            def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
                screen.close()

        return Batches()

    def epoch(self, row: dict[str, Any]) -> None:
        """A line for an epoch, under a head at the first; `left` is for all that are left at this epoch's pace."""
        self.close()
        (speed,) = (name for name in row if name.endswith("_per_second"))
        if not self._headed:
            self._headed = True
            heads = (head for _, head in self._columns)
            self._line(("epoch", "phase", *heads, "lr", speed.replace("_per_second", "/s"), "wait", "left"))
        trained = row["epoch"] > 0
        cells = (
            f"{row['epoch']}/{self._epochs}" if trained else "-",
            row["phase"],
            *(f"{row[name]:.3f}" if name in row else "-" for name, _ in self._columns),
            f"{row['learning_rate']:.1e}" if trained else "-",
            f"{row[speed]:.0f}",
            f"{100 * row['wait_share']:.0f} %",
            duration(row["seconds"] * (self._epochs - row["epoch"])) if trained else "-",
        )
        self._line(cells)

    def _line(self, cells: Iterable[str]) -> None:
        widths = (-7, -8, *(max(6, len(head)) for _, head in self._columns), 8, 9, 5, 7)
        texts = (
            text.ljust(-width) if width < 0 else text.rjust(width) for text, width in zip(cells, widths, strict=True)
        )
        self.console.print(" ".join(texts))

    def complete(self, run: "Run") -> None:
        """There is nothing to go on with."""
        self.console.print(f"run      {_shown(str(run.path))} is complete")
        self.finished(run, run.metrics)

    def finished(self, run: "Run", metrics: dict[str, Any]) -> None:
        """The figures, and how to use the model."""
        if "ended" in metrics:
            self.warn(f"the training ended before its time: {metrics['ended']}")
        best = metrics["best"]
        self.console.print(
            f"best     epoch {best['epoch']} ({best['phase']})" if best["epoch"] else "best     the probe"
        )
        self.figures("test" if "test" in metrics else "validation", metrics.get("test", metrics["validation"]))
        if run.report_html.exists():
            self.console.print(f"report   {_shown(str(run.report_html))}")
        what = "--text '...'" if "sentences" in metrics["validation"] else "PHOTOS --out answers.csv"
        if "error" in metrics["validation"]:
            what = "ITEMS --out scores.csv"
        self.console.print(f"use      kerastk predict {_shown(str(run.path))} {what}")

    def figures(self, name: str, figures: dict[str, Any]) -> None:
        """One split's figures in a line."""
        if "error" in figures:
            self._reconstructed(name, figures)
            return
        said = _of_photos(figures) if "photos" in figures else _of_sentences(figures)
        self.console.print(f"{name:8s} {said}", style="bold")

    def _reconstructed(self, name: str, figures: dict[str, Any]) -> None:
        """The errors of an autoencoder beside those of linear codes of the same size, and what else it is good for."""
        low, high = figures["error_95"]
        self.console.print(
            f"{name:8s} error {figures['error']:.2f} an item (95 %: {low:.2f} to {high:.2f}; "
            f"{_count(figures['items'], 'item')}), PSNR {figures['psnr']:.1f} dB", style="bold",
        )  # fmt: skip
        for rival, found in figures["rivals"].items():
            self.console.print(f"{'':8s} error {found['error']:.2f} by {rival} with a code of the same size")
        if "elbo" in figures:
            self.console.print(
                f"{'':8s} evidence lower bound {figures['elbo']:.2f} nats: reconstruction {figures['nats']:.2f}, "
                f"KL {figures['kl']:.2f}; {figures['prior']['active']} of {figures['prior']['numbers']} numbers in use"
            )
        if "denoised" in figures:
            before, after = figures["denoised"]["psnr_before"], figures["denoised"]["psnr_after"]
            self.console.print(f"{'':8s} denoised: PSNR {before:.1f} -> {after:.1f} dB ({after - before:+.1f})")
        found = figures["anomalies"]
        if "auroc" in found:
            self.console.print(
                f"{'':8s} anomalies: AUROC {found['auroc']:.3f}, average precision {found['average_precision']:.3f}; "
                f"{100 * found['found']:.1f} % found at {100 * found['false_alarms']:.1f} % false alarms"
            )

    def per_class(self, figures: dict[str, Any]) -> None:
        """Precision, recall and F1 of each class."""
        kind, what = next((kind, what) for kind, what in _ROWS.items() if kind in figures)
        rows, table = figures[kind], Table(box=None, pad_edge=False)
        for column in (kind, "precision", "recall", "F1", what):
            table.add_column(column, justify="left" if column == kind else "right")
        for name, row in rows.items():
            cells = (f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))
            table.add_row(_shown(name), *cells, str(row[what]))
        self.console.print(table)

    def runs(self, found: "list[Listed]") -> None:
        """The table of `kerastk runs`, then what is damaged. A narrow terminal has no room for network and data."""
        console = self._wide()
        columns = ["run", "state", "score", "95 %", "time", "started", "network", "data"]
        columns = columns if console.width >= 100 else columns[:6]
        table = Table(box=None, pad_edge=False)
        for column in columns:
            number = column in ("score", "95 %", "time")
            folds = column in ("run", "data")
            table.add_column(column, justify="right" if number else "left", no_wrap=not folds, overflow="fold")
        for run in found:
            of = " (val)" if run.split == "validation" else ""
            score, interval = _of_run(run)
            cells = (
                _shown(run.name),
                run.state,
                f"{run.measure} {score}{of}" if score else "",
                interval,
                "" if run.seconds is None else duration(run.seconds),
                _shown((run.started or "")[:16].replace("T", " ")),
                _shown(run.network or ""),
                _shown(run.data or ""),
            )
            table.add_row(*cells[: len(columns)])
        console.print(table)
        for run in found:
            if run.error is not None:
                self.warn(f"{run.name}: {run.error}")

    def table(self, make: Callable[[int], Table]) -> None:
        """A table that is made for so many characters a line."""
        console = self._wide()
        console.print(make(console.width))

    def _wide(self) -> Console:
        # A file or a pipe is as wide as it has to be.
        return self.console if self.console.is_terminal else Console(width=10_000, highlight=False)

    def warn(self, text: str) -> None:
        """Something the user should know."""
        self.console.print(f"warning  {_shown(text)}", style="yellow")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _of_run(run: "Listed") -> tuple[str, str]:
    """The score of a run and its interval: a share in percent, an error as it is."""
    if run.score is None or run.score_95 is None:
        return "", ""
    low, high = run.score_95
    if run.measure == "error":
        return _plain(run.score), f"{_plain(low)} to {_plain(high)}"
    return f"{100 * run.score:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"


def _plain(error: float) -> str:
    return f"{error:,.2f}" if error >= 1 or not error else f"{error:.3g}"


# Where figures hold a row for each class, and what is counted there.
_ROWS = {"classes": "photos", "types": "spans", "labels": "tokens"}


def _of_photos(figures: dict[str, Any]) -> str:
    low, high = figures["accuracy_95"]
    top5 = f", top-5 {100 * figures['top5_accuracy']:.1f} %" if "top5_accuracy" in figures else ""
    return (
        f"accuracy {100 * figures['accuracy']:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f}, "
        f"{figures['photos']} photos){top5}, macro F1 {figures['macro_f1']:.3f}, "
        f"calibration error {figures['expected_calibration_error']:.3f}"
    )


def _of_sentences(figures: dict[str, Any]) -> str:
    of = f"{_count(figures['sentences'], 'sentence')}, {_count(figures['tokens'], 'word')}"
    if "f1" not in figures:
        low, high = figures["token_accuracy_95"]
        return f"accuracy {100 * figures['token_accuracy']:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f}; {of})"
    low, high = figures["f1_95"]
    return (
        f"F1 {100 * figures['f1']:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f}; {of}), precision "
        f"{100 * figures['precision']:.2f} %, recall {100 * figures['recall']:.2f} %"
    )


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _count(number: int, noun: str, several: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds as 7s, 2m05s or 1h20m."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
