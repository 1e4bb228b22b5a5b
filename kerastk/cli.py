"""The command line. A user's mistake becomes one line and an exit code; the library does the work."""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import kerastk
from kerastk import recipes
from kerastk.errors import DataError, GateError, KerastkError, RecipeError
from kerastk.options import RecipeCommand, given
from kerastk.recipe import Finetune, Recipe, Tag, construct, dump, parse

# The fields of a recipe that say how photos become vectors.
EMBEDDING_OPTIONS = (
    "base", "weights", "image_size", "resize", "threads", "precision", "device", "cache", "cache_size",
)  # fmt: skip
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(kerastk.__version__, prog_name="kerastk")
def commands() -> None:
    """Fine-tune pretrained Keras networks on your own photos.

    Start with `kerastk demo`, or with `kerastk finetune PHOTOS` on a folder that holds a folder of photos per class.
    """


def main() -> None:
    """Entry point: runs a command and turns errors into one line on standard error and an exit code."""
    # A photo over the limit is refused with its name; Pillow's own warning tells less.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    try:
        commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        # Ctrl-C, as click tells it.
        _fail("stopped", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KerastkError as error:
        _fail(str(error), error.exit_code)
    except MemoryError:
        _fail("out of memory; try a smaller --batch-size, fewer --threads or a smaller --image-size", 2)
    except OSError as error:
        where = f": {error.filename!r}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", 2)


def _fail(message: str, code: int) -> None:
    click.echo(f"kerastk: {' '.join(message.split())}", err=True)
    sys.exit(code)


def start_backend() -> None:
    """Import Keras and look for devices without the notes that TensorFlow's libraries print whatever its log level.

    Those that come before its logging is set up heed no setting (tensorflow#100442), so standard error is held back;
    it is shown if the start fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            from kerastk.training.device import choose_device

            choose_device("auto")
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


dry_run = click.option("--dry-run", is_flag=True, help="Print the recipe, the split and what would be trained; stop.")
go_on = click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run of this command where it was interrupted; start it if there is none.",
)
from_recipe = click.option(
    "--recipe", "file", metavar="NAME|FILE", help="Start from a recipe; options given here override it."
)
# What can be demanded of a run: the option, what it is in words, and the names that it may have among the figures.
GATES = {
    "assert_accuracy": ("the accuracy (of a tagger: of tags)", ("accuracy", "token_accuracy")),
    "assert_f1": ("a tagger's F1 of spans", ("f1",)),
}


def gate(*names: str) -> Callable[[Callable], Callable]:
    """Adds such options to a command."""

    def add(command: Callable) -> Callable:
        for name in reversed(names):
            command = click.option(
                "--" + name.replace("_", "-"), type=click.FloatRange(0, 1), metavar="SHARE",
                help=f"Exit with code 1 if {GATES[name][0]} on the test split (else validation) is lower.",
            )(command)  # fmt: skip
        return command

    return add


GATES_OF = {Finetune: gate("assert_accuracy"), Tag: gate("assert_f1", "assert_accuracy")}
last_model = click.option(
    "--last", is_flag=True, help="Ask the model of the last epoch, of a run with --keep-last, in place of the best one."
)


@commands.command(cls=RecipeCommand, recipe=Finetune)
@click.argument("data", required=False)
@from_recipe
@dry_run
@go_on
@GATES_OF[Finetune]
def finetune(data: str | None, file: str | None, dry_run: bool, resume: bool, **values: Any) -> None:
    """Fine-tune a pretrained network on DATA.

    DATA is a folder of class folders, one with train/, val/ and test/ (any of them), a .zip or .tar of either, a CSV or
    Parquet file with path,label[,split], or tfds:NAME.
    """
    _learn(Finetune, data, file, dry_run, resume, values)


@commands.command(cls=RecipeCommand, recipe=Tag)
@click.argument("data", required=False)
@from_recipe
@dry_run
@go_on
@GATES_OF[Tag]
def tag(data: str | None, file: str | None, dry_run: bool, resume: bool, **values: Any) -> None:
    """Train a tagger of words on DATA: names, parts of speech, slots.

    DATA is a file of tagged sentences: columns (CoNLL), CoNLL-U, or JSON lines with text and spans.
    """
    _learn(Tag, data, file, dry_run, resume, values)


def _learn(
    kind: type[Recipe], data: str | None, file: str | None, dry_run: bool, resume: bool, values: dict[str, Any]
) -> None:
    """Train by a task's options, on top of those of a recipe's file."""
    base: dict[str, Any] = {}
    if file is not None:
        theirs, base = parse(_recipe_file(file))
        if theirs is not kind:
            raise RecipeError(f"{file} is a recipe for {theirs.task}, not for {kind.task}; use `kerastk train {file}`.")
    overrides = given(kind, values) | ({"data": data} if data is not None else {})
    _train(construct(kind, base | overrides), dry_run, resume, values)


@commands.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("name", metavar="NAME|FILE", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train(context: click.Context, name: str | None, options: tuple[str, ...]) -> None:
    """Train a shipped recipe or a recipe file.

    `kerastk train NAME --help` shows the recipe's options, all of which may be overridden.
    """
    if name is None or name in ("-h", "--help"):
        click.echo(context.get_help())
        return
    kind, base = parse(_recipe_file(name))

    @click.command(name, cls=RecipeCommand, recipe=kind, context_settings=CONTEXT, help=f"Train {name} ({kind.task}).")
    @dry_run
    @go_on
    @GATES_OF[kind]
    def run(dry_run: bool, resume: bool, **values: Any) -> None:
        _train(construct(kind, base | given(kind, values)), dry_run, resume, values)

    with run.make_context(f"{context.command_path} {name}", list(options), parent=context) as inner:
        run.invoke(inner)


def _recipe_file(name: str) -> Path:
    """A recipe's file by its path or by the name of a shipped recipe."""
    if name in recipes.shipped_names():
        return recipes.folder() / f"{name}.toml"
    if name.endswith(".toml") or os.sep in name:
        return Path(name)
    raise RecipeError(
        f"no recipe is called {name!r}; shipped: {', '.join(recipes.shipped_names())}. A file ends in .toml."
    )


def _train(recipe: Recipe, dry: bool, resume: bool, values: dict[str, Any]) -> None:
    wanted = _wanted(values)
    for name in [*wanted, *(["resume"] if resume else [])] if dry else ():
        raise RecipeError(f"--{name.replace('_', '-')} has no effect with --dry-run; leave it out.")
    start_backend()
    if dry:
        from kerastk.screen import Screen
        from kerastk.training.plan import plan

        screen = Screen()
        settled = plan(recipe, screen=screen, dry=True)
        click.echo(dump(settled.recipe))
        screen.plan(settled)
        return
    _gate_run(kerastk.train(recipe, resume=resume), wanted)


@commands.command()
@click.argument("run")
@click.option("--data", help="Where the data is now, if it is elsewhere than at the start.")
@click.option(
    "--allow-data-change",
    is_flag=True,
    help="Go on though photos came or went; those that are known stay in their splits.",
)
@click.option("--allow-version-change", is_flag=True, help="Go on with other versions of Keras and what else computes.")
@gate("assert_accuracy", "assert_f1")
def resume(run: str, data: str | None, allow_data_change: bool, allow_version_change: bool, **values: Any) -> None:
    """Go on with RUN where it was interrupted.

    The model comes out as it would have without the interruption. A run that is complete says so.
    """
    from kerastk.run import Run

    # Before the network is loaded, which takes seconds.
    Run.open(run)
    start_backend()
    found = kerastk.resume(
        run, data=data, allow_data_change=allow_data_change, allow_version_change=allow_version_change
    )
    _gate_run(found, _wanted(values))


def _wanted(values: dict[str, Any]) -> dict[str, float]:
    """What is demanded, by the option's name."""
    return {name: values[name] for name in GATES if values.get(name) is not None}


def _gate_run(run: Any, wanted: dict[str, float]) -> None:
    if wanted:
        metrics = run.metrics
        _gate(metrics.get("test", metrics["validation"]), wanted)


def _gate(figures: dict[str, Any], wanted: dict[str, float]) -> None:
    for option, value in wanted.items():
        names = [name for name in GATES[option][1] if name in figures]
        if not names:
            raise GateError(f"--{option.replace('_', '-')}: the run has no such figure.")
        # Also for a NaN, which compares as false either way.
        if not figures[names[0]] >= value:
            name = option.removeprefix("assert_").replace("f1", "F1")
            raise GateError(f"{name} {figures[names[0]]:.4f} is below the demanded {value:g}.")


@commands.command()
@click.argument("run")
@click.argument("inputs", nargs=-1, metavar="[PHOTOS|TEXTS]...")
@click.option("--text", help="Tag this text.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write a .csv, .jsonl or (for photos) .parquet file."
)  # fmt: skip
@click.option("--top", type=click.IntRange(1), help="Answers a photo.  [default: 1]")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads that read and decode photos.")
@click.option(
    "--calibrated/--uncalibrated", default=None,
    help="Probabilities for photos after temperature scaling, as the saved model gives them, or before: undone by the "
    "temperature in metrics.json. The answers are the same.  [default: calibrated]",
)  # fmt: skip
@last_model
def predict(run: str, inputs: tuple[str, ...], text: str | None, out: Path | None, last: bool, **options: Any) -> None:
    """Let the model of RUN answer for photos, or tag texts.

    PHOTOS are files, folders and archives; there is a row for each file, and one that cannot be read has its error
    there. TEXTS are UTF-8 files, each line of which is a text, for the run of a tagger.
    """
    from kerastk.run import Run

    opened = Run.open(run)
    if opened.labels.get("task") == "tag":
        for name, value in options.items():
            if value is not None:
                shown = "uncalibrated" if value is False else name
                raise RecipeError(f"--{shown} has no effect on a tagger; leave it out.")
        _predict_tags(opened, inputs, text, out, last)
        return
    if text is not None:
        raise RecipeError(f"--text is for a tagger, and {run} takes photos.")
    if not inputs:
        raise RecipeError("no photos given; name files, folders or archives.")
    _predict_photos(opened, inputs, out, last, **options)


def _predict_photos(
    run: Any,
    inputs: tuple[str, ...],
    out: Path | None,
    last: bool,
    top: int | None,
    threads: int | None,
    calibrated: bool | None,
) -> None:
    from kerastk.answers import ENDINGS, table
    from kerastk.screen import printable
    from kerastk.storage import check_ending

    if out is not None:
        # Before the model is loaded, which takes seconds.
        check_ending(out, ENDINGS)
    start_backend()
    top = top or 1
    predictor = kerastk.load(run, calibrated=calibrated is not False, last=last)
    if top > len(predictor.classes):
        raise RecipeError(f"--top must be at most the number of classes, {len(predictor.classes)}; got {top}.")
    found = predictor.stream(inputs, top=top, threads=threads)
    if out is None:
        for prediction in found:
            answers = "  ".join(f"{label} {probability:.3f}" for label, probability in prediction.answers)
            click.echo(f"{printable(prediction.path)}\t{printable(answers) or 'error: ' + prediction.error}")
        return
    done = bad = 0
    with table(out, top) as put:
        for prediction in found:
            put(prediction)
            done += 1
            bad += bool(prediction.error)
        if not done:
            raise DataError(f"there is no file in {', '.join(map(repr, inputs))}.")
    click.echo(f"{done} photos, {bad} unreadable -> {out}")


def _predict_tags(run: Any, inputs: tuple[str, ...], text: str | None, out: Path | None, last: bool) -> None:
    from kerastk.answers import SPAN_ENDINGS, span_table
    from kerastk.screen import printable
    from kerastk.storage import check_ending
    from kerastk.tagger import lines

    if (text is None) == (not inputs):
        raise RecipeError("give either --text or files whose lines are texts.")
    if out is not None:
        check_ending(out, SPAN_ENDINGS)
    given = [("", 1, text)] if text is not None else lines(inputs)
    start_backend()
    found = kerastk.load(run, last=last).answers(given)
    if out is None:
        for path, line, _, spans in found:
            for span in spans:
                place = f"{path}:{line}\t" if path else ""
                click.echo(
                    f"{printable(place[:-1])}{place[-1:]}{span.start}\t{span.end}\t{printable(span.label)}\t"
                    f"{span.probability:.3f}\t{printable(span.text)}"
                )
        return
    texts = spans_found = 0
    with span_table(out) as put:
        for answer in found:
            put(*answer)
            texts += 1
            spans_found += len(answer[3])
    click.echo(f"{texts} texts, {spans_found} spans -> {out}")


@commands.command()
@click.argument("run")
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to a .json file.")
@last_model
@gate("assert_accuracy", "assert_f1")
def evaluate(run: str, data: str, out: Path | None, last: bool, **values: Any) -> None:
    """Measure the model of RUN on labelled DATA: photos, or a file of tagged sentences.

    What it was trained on, by content, is pointed out.
    """
    import json

    from kerastk.evaluation.evaluate import evaluate as measure
    from kerastk.screen import Screen
    from kerastk.storage import write_atomic

    start_backend()
    screen = Screen()
    figures = measure(kerastk.load(run, last=last), data)
    screen.figures("all", figures)
    if figures["trained_on"]:
        what = "photos" if "photos" in figures else "sentences"
        screen.warn(
            f"the model was trained on {figures['trained_on']} of these {figures[what]} {what}, or chosen by them "
            "(by content); the figures flatter it."
        )
        if "unseen" in figures:
            screen.figures("unseen", figures["unseen"])
    if figures.get("unreadable"):
        screen.warn(f"{figures['unreadable']} files could not be read and are left out.")
    screen.per_class(figures)
    if out is not None:
        write_atomic(out, json.dumps(figures, indent=1))
    _gate(figures, _wanted(values))


@commands.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Write the page to this .html file.  [default: report.html in the RUN; comparison.html for several]",
)  # fmt: skip
def report(runs: tuple[str, ...], out: Path | None) -> None:
    """Make the report of a complete RUN again, or compare several.

    A comparison has figures beside each other, what the recipes have not in common, the curves, and whether a
    difference on the same test photos or sentences is more than chance. Neither needs the data.
    """
    from kerastk.evaluation import comparison
    from kerastk.evaluation import report as one
    from kerastk.run import Run
    from kerastk.storage import check_ending, write_atomic

    if out is not None:
        check_ending(out, (".html",))
    opened = [Run.open(run) for run in runs]
    if len(opened) == 1:
        page = one.page(opened[0])
        if out is None:
            opened[0].write_report(page)
    else:
        page = comparison.page(opened)
        out = out or Path("comparison.html")
    if out is not None:
        write_atomic(out, page)
    click.echo(out or opened[0].report_html)


@commands.command(name="runs")
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known of each as JSON.")
def list_runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (runs) with their figures, the newest first.

    A run is complete, running, interrupted (`kerastk resume` goes on with it) or damaged.
    """
    import dataclasses
    import json

    from kerastk.evaluation.listing import runs
    from kerastk.screen import Screen

    found = runs(folder)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(run) for run in found], indent=1))
    elif found:
        Screen().runs(found)
    else:
        click.echo(f"no runs in {folder}")


@commands.command()
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), help="Write every finding to a .json file.")
@click.option("--strict", is_flag=True, help="Exit with code 1 at any finding.")
@click.option("--dev", help="Beside sentences in DATA: those by which a model is chosen.")
@click.option("--test", help="Beside sentences in DATA: those to test on.")
@click.option("--columns", help="As --columns of `tag`.")
@click.option("--tag-column", help="As --tag-column of `tag`.")
def check(data: str, out: Path | None, strict: bool, **options: Any) -> None:
    """Look for what is wrong with DATA: photos, or a file of tagged sentences.

    Of photos: damaged, empty and oversized files, copies and near-copies, the same photo under two labels or in two
    splits, contradicting suffixes, tiny and lopsided classes. Of sentences: tags that break their scheme, sentences of
    the test set that are also in training, what is unseen and what is rare.
    """
    import dataclasses
    import json

    from kerastk.datasets.sequences import is_sentences
    from kerastk.screen import Screen
    from kerastk.storage import write_atomic

    screen, of_sentences = Screen(), is_sentences(data)
    for name, value in options.items():
        if value is not None and not of_sentences:
            raise RecipeError(f"--{name.replace('_', '-')} is for tagged sentences, and {data!r} holds photos.")
    if of_sentences:
        from kerastk.datasets.sequence_data import look_at as look_at_sentences

        dev, test = options.pop("dev"), options.pop("test")
        look = look_at_sentences({"train": data, "val": dev, "test": test}, **options)
        screen.sentences(look)
    else:
        from kerastk.datasets.check import check as look_at
        from kerastk.datasets.source import open_source

        source = open_source(data)
        with screen.working(f"looking at {source.name}") as progress:
            look = look_at(source, progress=progress)
        screen.photos(look)
    if out is not None:
        write_atomic(out, json.dumps([dataclasses.asdict(finding) for finding in look.findings], indent=1))
        click.echo(f"all findings -> {out}")
    if strict and look.findings:
        raise GateError(f"{len(look.findings)} findings.")


@commands.command(name="lr-find", cls=RecipeCommand, recipe=Finetune)
@click.argument("data", metavar="DATA|RECIPE")
@click.option(
    "--out", type=click.Path(path_type=Path), default="lr-find.png", show_default=True,
    help="Write the picture to a .png file, and the curve to a .csv file beside it.",
)  # fmt: skip
def lr_find(data: str, out: Path, **values: Any) -> None:
    """Find a learning rate by a range test.

    Trains for at most 100 batches while the learning rate grows from 1e-7 to 10, and suggests the one at which the loss
    falls steepest. DATA is as for `finetune`; or a recipe's name or file. No run is made. `--learning-rate auto` does
    the same at the start of a run.
    """
    from kerastk.datasets.sequences import is_sentences
    from kerastk.storage import check_ending

    check_ending(out, (".png",))
    base: dict[str, Any] = {"data": data}
    kind: type[Recipe] = Tag if is_sentences(data) else Finetune
    if data in recipes.shipped_names() or data.endswith(".toml"):
        kind, base = parse(_recipe_file(data))
    recipe = construct(kind, base | given(Finetune, values) | {"learning_rate": "auto"})
    start_backend()
    import io

    from kerastk.datasets.table import csv_writer
    from kerastk.storage import write_atomic

    found = kerastk.find_learning_rate(recipe)
    text = io.StringIO(newline="")
    rows = found.rows()
    write = csv_writer(text, list(rows[0]))
    for row in rows:
        write(row)
    write_atomic(out.with_suffix(".csv"), text.getvalue())
    write_atomic(out, found.picture())
    click.echo(f"--learning-rate {found.suggestion:.2g}   ({out}, {out.with_suffix('.csv')})")


@commands.command()
@click.argument("data")
@click.option("--policy", default="light", show_default=True, metavar="NAME|STEPS", help="As --augment of `finetune`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write a .png file.")
@click.option("--photos", type=click.IntRange(1, 64), default=6, show_default=True, help="Rows of the picture.")
@click.option("--views", type=click.IntRange(1, 64), default=7, show_default=True, help="How often each is varied.")
@click.option("--image-size", type=click.IntRange(8, 1024), default=224, show_default=True, help="Side, in pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="As that of the run.")
def augment(data: str, policy: str, out: Path, photos: int, views: int, image_size: int, seed: int) -> None:
    """Show what a network will see of DATA.

    A row a photo: as it is, then as the epochs 1, 2, 3, ... of a run show it.
    """
    from kerastk.notation import check_augmentation
    from kerastk.storage import check_ending

    check_ending(out, (".png",))
    check_augmentation(policy)
    from kerastk.datasets.photos import picture
    from kerastk.storage import write_atomic

    write_atomic(out, picture(data, policy, photos=photos, views=views, image_size=image_size, seed=seed))
    click.echo(f"{policy} -> {out}")


@commands.command(cls=RecipeCommand, recipe=Finetune, only=EMBEDDING_OPTIONS)
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write a .parquet or .npz file.")
def embed(data: str, out: Path, **values: Any) -> None:
    """Write the pooled features of a pretrained network for the photos of DATA: path, label, vector.

    DATA is what `finetune` takes, or a folder or archive of photos without classes.
    """
    from kerastk.storage import check_ending

    # Before the network is loaded, which takes seconds.
    check_ending(out, (".parquet", ".npz"))
    recipe = construct(Finetune, given(Finetune, values) | {"data": data})
    start_backend()
    found = kerastk.embed(recipe, show=True)
    found.write(out)
    size = found.vectors.shape[1]
    click.echo(f"{len(found.paths)} photos of {size} values each, {found.unreadable} unreadable left out -> {out}")


@commands.group()
def cache() -> None:
    """What frozen networks made of photos, kept for the next run."""


folder = click.option("--folder", type=click.Path(path_type=Path), help="A folder given as --cache to other commands.")


@cache.command(name="info")
@folder
def cache_info(folder: Path | None) -> None:
    """List what is kept, the one used last first."""
    import time

    from kerastk.training.store import default_folder, entries

    root = folder or default_folder()
    found = entries(root)
    for entry in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        shape = " x ".join(map(str, entry.described["shape"]))
        view = f"view {entry.described['view']}" if "view" in entry.described else "plain"
        click.echo(
            f"{used}  {entry.size / 1e6:9,.1f} MB  {entry.described.get('base')}  {shape} {entry.described['dtype']}  "
            f"{view}"
        )
    click.echo(f"{sum(entry.size for entry in found) / 1e6:,.1f} MB in {len(found)} stores in {root}")


@cache.command(name="clear")
@folder
def cache_clear(folder: Path | None) -> None:
    """Delete all that no running process uses."""
    from kerastk.training.store import default_folder, entries, trim

    root = folder or default_folder()
    freed = trim(root, 0)
    left = len(entries(root))
    click.echo(f"{freed / 1e6:,.1f} MB freed" + (f"; {left} stores are in use" if left else ""))


@commands.command()
def bases() -> None:
    """List the pretrained networks with their input sizes."""
    from kerastk.networks.bases import BASES

    for name, base in BASES.items():
        click.echo(f"{name:26s} {base.family:18s} {base.image_size} px")


@commands.command(name="recipes")
def list_recipes() -> None:
    """List the shipped recipes."""
    for name in recipes.shipped_names():
        # The head of a recipe: its command, an empty line, then what it is in a line.
        lines = (recipes.folder() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
        click.echo(f"{name:12s} {lines[2].removeprefix('# ')}")


@commands.group()
def weights() -> None:
    """ImageNet weights: what is here, fetch, verify."""


@weights.command(name="list")
def weights_list() -> None:
    """List the files of all bases, and where those lie that are here."""
    from kerastk.networks.bases import BASES
    from kerastk.networks.weights import local

    for name, base in BASES.items():
        click.echo(f"{name:26s} {base.file}  {local(base) or '-'}")


@weights.command(name="fetch")
@click.argument("base")
def weights_fetch(base: str) -> None:
    """Have the weights of BASE in Keras's cache, verified."""
    from kerastk.networks.bases import BASES, find
    from kerastk.networks.weights import imagenet

    click.echo(imagenet(BASES[find(base)]))


@weights.command(name="verify")
@click.argument("base", required=False)
def weights_verify(base: str | None) -> None:
    """Compare the files that are here (or that of BASE) with Keras's hashes, or with those of their first use."""
    from kerastk.errors import WeightsError
    from kerastk.networks.bases import BASES, find
    from kerastk.networks.weights import local, verify

    wanted = [find(base)] if base else list(BASES)
    here = [(name, path) for name in wanted if (path := local(BASES[name])) is not None]
    if base and not here:
        raise WeightsError(f"no weights of {base} are here; `kerastk weights fetch {base}` gets them.")
    bad = 0
    for name, path in here:
        try:
            click.echo(f"{name:26s} {path}  {verify(BASES[name], path)}")
        except WeightsError as error:
            bad += 1
            click.echo(f"{name:26s} {error}", err=True)
    if bad:
        raise WeightsError(f"{bad} of {len(here)} files are damaged.")
    if not here:
        click.echo("no weights are here yet")


@commands.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default="kerastk-demo", show_default=True,
    help="Where the photos and runs go.",
)  # fmt: skip
def demo(folder: Path) -> None:
    """Train on real handwritten digits, offline.

    1,797 photos, about a minute on two cores.
    """
    from kerastk.demo import demo as show

    start_backend()
    show(folder)
