"""The command line. A user's mistake becomes one line and an exit code; the library does the work."""

import sys
import warnings

import click

import kerastk
from kerastk.cli import answering, keeping, learning, looking
from kerastk.errors import KerastkError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(kerastk.__version__, prog_name="kerastk")
def commands() -> None:
    """Train Keras networks on your own data: classifiers of photos, taggers of words, autoencoders.

    Start with `kerastk demo`, or with `kerastk finetune PHOTOS` on a folder that holds a folder of photos per class,
    `kerastk tag SENTENCES` on a file of tagged sentences, or `kerastk autoencode DATA` on photos or numbers.
    """


for _command in (
    learning.finetune, learning.classify, learning.tag, learning.autoencode, learning.train, learning.resume,
    learning.lr_find, learning.demo,
    answering.predict, answering.evaluate, answering.embed,
    looking.check, looking.augment, looking.summary, looking.list_runs, looking.report,
    keeping.cache, keeping.weights, keeping.data, keeping.bases, keeping.list_recipes,
):  # fmt: skip
    commands.add_command(_command)


def main() -> None:
    """Entry point: runs a command and turns errors into one line on standard error and an exit code."""
    # A photo over the limit is refused with its name; Pillow's own warning tells less.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    try:
        commands.main(prog_name="kerastk", standalone_mode=False)
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
