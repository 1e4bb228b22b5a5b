"""Commands that ask a network: `predict`, `evaluate`, `embed`."""

from pathlib import Path
from typing import Any

import click

import kerastk
from kerastk.cli.backend import start_backend
from kerastk.cli.gates import check_run, demand, demanded, gate
from kerastk.errors import DataError, RecipeError
from kerastk.options import RecipeCommand, given
from kerastk.recipe import Finetune, construct

# The fields of a recipe that say how photos become vectors.
EMBEDDING_OPTIONS = (
    "base", "weights", "image_size", "resize", "threads", "precision", "device", "cache", "cache_size",
)  # fmt: skip
last_model = click.option(
    "--last", is_flag=True, help="Ask the model of the last epoch, of a run with --keep-last, in place of the best one."
)


@click.command()
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


@click.command()
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
    from kerastk.run import Run
    from kerastk.screen import Screen
    from kerastk.storage import write_atomic

    opened, wanted = Run.open(run), demanded(values)
    check_run(wanted, opened)
    start_backend()
    screen = Screen()
    figures = measure(kerastk.load(opened, last=last), data)
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
    demand(figures, wanted)


@click.command(cls=RecipeCommand, recipe=Finetune, only=EMBEDDING_OPTIONS)
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
