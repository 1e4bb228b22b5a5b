"""Tagging: how a `Tag` recipe becomes sentences, network, one phase, objective and figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk import shipped
from kerastk.datasets.schemes import PLAIN, SCHEMES, convert, legal
from kerastk.datasets.sequence_data import SentenceData, open_tagged
from kerastk.datasets.vocabulary import PARTS, Vocabulary
from kerastk.errors import RecipeError, RunError
from kerastk.evaluation.spans import surfaces, tagging
from kerastk.networks import saved
from kerastk.networks.tagger import Characters, Legal, kernel_notes, scores_model, tagger
from kerastk.networks.tagger import objective as likelihood
from kerastk.networks.vectors import Vectors, read_vectors, vector_words
from kerastk.notation import schedule_numbers, split_fractions
from kerastk.recipe import TAG_SPLIT, Tag
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.training.cache import Choice
from kerastk.training.fitting import Fitting
from kerastk.training.phases import Phase
from kerastk.training.plan import Plan
from kerastk.training.tagging import TagValidation, answers
from kerastk.training.tensorboard import Events, Writer

WORD_SIZE = 100
# Characters of a word that are read, and what reads them.
WORD_LENGTH = 20
CHARACTER_SIZE, FILTERS, WIDTHS, CHARACTER_UNITS = 32, 40, (3, 5), 40
CASING_SIZE = 8
# What TensorBoard's table of runs has beside their values: the scalars, by tag, and their heads.
COLUMNS = {
    "final/test_f1": "F1 (test)",
    "final/test_token_accuracy": "token accuracy (test)",
    "final/validation_f1": "F1 (validation)",
    "final/validation_token_accuracy": "token accuracy (validation)",
    "final/seconds": "seconds of training",
}
COMPARED = ("output", "width", "batch_size", "epochs", "learning_rate")


def settle(recipe: Tag) -> Tag:
    """The recipe as it is: nothing of it hangs on another run."""
    return recipe


def source_of(recipe: Tag, data: Any = None) -> str:
    """The file of the training sentences."""
    if data is not None:
        raise RecipeError("a tagger learns from files; give the path as data in the recipe.")
    if recipe.data is None:
        raise RecipeError("no data given; name a file of tagged sentences (columns, CoNLL-U or JSON lines).")
    return shipped.data(recipe.data)


def stem(recipe: Tag, source: str) -> str:
    """What the automatic name of a run begins with."""
    name = Path(source).name.removesuffix(".gz")
    return f"{Path(name).stem or 'sentences'}-{recipe.cell}-{recipe.output}"


def parts(recipe: Tag) -> tuple[str, ...]:
    """The inputs that the recipe's network takes."""
    unused = {"characters" if recipe.characters == "none" else "", "" if recipe.casing else "casing"}
    return tuple(part for part in PARTS if part not in unused)


def gather(
    recipe: Tag, source: str, *, look: Callable, known: Run | None, dry: bool
) -> tuple[SentenceData, keras.Model]:
    """The splits and the network. The vocabulary of a run that is gone on with stays as it is."""
    with look(f"reading {Path(source).name}"):
        data = open_data(recipe, source, known)
        table = _table(recipe, data.vocabulary)
    if table is not None:
        data.manifest.notes.append(
            f"of {len(data.vocabulary.words):,} words {table.exact + table.folded:,} are in {recipe.vectors} as they "
            f"are, {table.lower:,} in small letters, {table.missing:,} not"
        )
    return data, build(recipe, data.vocabulary, data.manifest.scheme, table)


def open_data(recipe: Tag, source: str, known: Run | None = None) -> SentenceData:
    """The splits of a recipe's sentences."""
    given = {} if recipe.vectors is None else {"extra": vector_words(recipe.vectors, most=recipe.max_words)}
    return open_tagged(
        source,
        dev=recipe.dev,
        test=recipe.test,
        columns=recipe.columns,
        tag_column=recipe.tag_column,
        scheme=recipe.scheme,
        split=recipe.split,
        fractions=split_fractions(recipe.split or TAG_SPLIT),
        split_seed=recipe.split_seed,
        strict=recipe.strict,
        max_words=recipe.max_words,
        min_count=recipe.min_count,
        fold_digits=recipe.fold_digits,
        lower=recipe.lower,
        word_length=WORD_LENGTH,
        batch_words=recipe.batch_size,
        max_length=recipe.max_length,
        word_dropout=recipe.word_dropout,
        seed=recipe.seed,
        parts=parts(recipe),
        vocabulary=None if known is None else Vocabulary.from_json(known.vocabulary),
        assigned=None if known is None else known.assigned,
        **given,
    )


def network(recipe: Tag, source: str) -> keras.Model:
    """The uncompiled tagger of a recipe, with the vocabulary of its data."""
    data = open_data(recipe, source)
    return build(recipe, data.vocabulary, data.manifest.scheme, _table(recipe, data.vocabulary))


def _table(recipe: Tag, vocabulary: Vocabulary) -> Vectors | None:
    """The vectors of the recipe's file for a vocabulary."""
    return None if recipe.vectors is None else read_vectors(recipe.vectors, vocabulary.words, seed=recipe.seed)


def build(recipe: Tag, vocabulary: Vocabulary, scheme: str, table: Vectors | None) -> keras.Model:
    """The uncompiled tagger for a vocabulary whose tags are of a scheme, from the vectors of `table` or random ones."""
    matrix = None if table is None else table.matrix
    sizes, rules = vocabulary.sizes, None
    if recipe.output == "crf" and scheme != PLAIN:
        starts, transitions, ends = legal(vocabulary.tags, scheme)
        rules = Legal(transitions=transitions, starts=starts, ends=ends)
    spelling = None
    if recipe.characters != "none":
        is_cnn = recipe.characters == "cnn"
        spelling = Characters(
            network=recipe.characters, count=sizes["characters"], size=CHARACTER_SIZE,
            values=FILTERS if is_cnn else CHARACTER_UNITS, widths=WIDTHS if is_cnn else (),
        )  # fmt: skip
    return tagger(
        words=sizes["words"],
        tags=len(vocabulary.tags),
        word_size=(recipe.word_size or WORD_SIZE) if matrix is None else matrix.shape[1],
        vectors=matrix,
        train_vectors=recipe.train_vectors is not False,
        characters=spelling,
        casings=sizes["casing"] if recipe.casing else 0,
        casing_size=CASING_SIZE,
        cell=recipe.cell,
        layers=recipe.layers,
        width=recipe.width,
        dropout=recipe.dropout,
        output=recipe.output,
        legal=rules,
    )


def resolve(recipe: Tag, model: keras.Model, data: SentenceData, **found: Any) -> Tag:
    """The recipe with every automatic value filled in."""
    scheme = data.manifest.scheme
    return recipe.resolve(
        steps=data.train.steps,
        scheme=None if scheme == PLAIN else scheme, word_size=recipe.word_size or WORD_SIZE,
        split=data.manifest.split, split_seed=data.manifest.split_seed, **found,
    )  # fmt: skip


def phases(recipe: Tag, model: keras.Model, data: SentenceData) -> list[Phase]:
    """The one phase of a resolved recipe."""
    name, numbers = schedule_numbers(recipe.schedule)
    rate = None if recipe.learning_rate == "auto" else recipe.learning_rate
    phase = Phase(
        name="train", unfreeze="all", epochs=recipe.epochs, learning_rate=rate, warmup_epochs=recipe.warmup_epochs,
        schedule=name, numbers=numbers,
    )  # fmt: skip
    return [phase]


def trained(model: keras.Model, phase: Phase, start: None = None) -> keras.Model:
    """What is fitted: the network up to the scores of its tags."""
    return scores_model(model)


def cached(
    recipe: Tag, model: keras.Model, data: SentenceData, phases: Sequence[Phase]
) -> tuple[Tag, dict[str, Choice]]:
    """Nothing is frozen, and nothing kept."""
    return recipe, {}


def activations(recipe: Tag, model: keras.Model) -> None:
    """There are none to keep."""


def described(recipe: Tag) -> str:
    """The network of a resolved recipe in a few words."""
    spelling = "" if recipe.characters == "none" else f" over words and their characters ({recipe.characters})"
    layers = "one layer" if recipe.layers == 1 else f"{recipe.layers} layers"
    return f"bidirectional {recipe.cell}{spelling}, {layers} of {recipe.width}, {recipe.output}"


def epoch_columns(recipe: Tag) -> tuple[tuple[str, str], ...]:
    """What an epoch's line shows of its row: names and heads."""
    score = ("val_f1", "val F1") if recipe.scheme else ("val_error", "val err")
    return (("loss", "loss"), ("val_loss", "val loss"), ("val_accuracy", "val acc"), score)


def stages_of(model: keras.Model) -> dict[str, list[str]]:
    """The names of the model's operations by part: features, each recurrent layer, head."""
    found: dict[str, list[str]] = {"features": []}
    for operation in model.operations:
        if operation.name.startswith("recurrent_") or operation.name == "head":
            found[operation.name] = []
        found[list(found)[-1]].append(operation.name)
    return found


def notes(recipe: Tag, resolved: Tag, model: keras.Model, data: SentenceData) -> list[str]:
    """What a user should know of how a recipe was resolved: what computes."""
    on_gpu = resolved.device != "cpu"
    fused = kernel_notes(model, device=resolved.device, xla=False)[0] == "fused kernel on"
    xla = keras.backend.backend() == "jax" or (on_gpu and not fused and not resolved.deterministic)
    return ["; ".join(kernel_notes(model, device=resolved.device, xla=xla))]


def validation(recipe: Tag, model: keras.Model, data: SentenceData) -> TagValidation:
    """What judges the model after each epoch."""
    return TagValidation(model, data.manifest.scheme)


def watching(plan: Plan, events: Events) -> list[keras.callbacks.Callback]:
    """What looks on beside what every run has: nothing."""
    return []


def nothing(data: SentenceData) -> tuple[np.ndarray, np.ndarray]:
    """A label and an answer of no meaning, for a batch of one word."""
    return np.zeros((1, 1), np.int32), np.zeros((1, 1, len(data.classes)), np.float32)


def objective(recipe: Tag, data: SentenceData, model: keras.Model) -> dict[str, Any]:
    """What `compile` gets: the likelihood of the tags under the output layer."""
    return {"loss": likelihood(model)}


def contract(recipe: Tag, data: SentenceData) -> dict[str, Any]:
    """What a predictor must know beside the vocabulary; goes into labels.json."""
    return {
        "task": recipe.task,
        "scheme": data.manifest.scheme,
        "source_scheme": data.manifest.source_scheme,
        "parts": list(parts(recipe)),
    }


def keep(run: Run, data: SentenceData) -> None:
    """Write what only this task's runs have."""
    run.write_vocabulary(data.vocabulary.to_json())


def labels_of(run: Run) -> dict[str, Any]:
    """What `contract` wrote, and `classes`, from labels.json.

    Raises:
        RunError: labels.json says something else.
    """
    labels = run.labels
    classes, given = labels.get("classes"), labels.get("parts")
    good = labels.get("task") == "tag" and isinstance(classes, list) and all(isinstance(each, str) for each in classes)
    good = good and labels.get("scheme") in SCHEMES and labels.get("source_scheme") in SCHEMES
    good = good and (labels["scheme"] == PLAIN) == (labels["source_scheme"] == PLAIN)
    good = good and isinstance(given, list) and "words" in given and all(each in PARTS for each in given)
    if not good:
        raise RunError(f"{run.labels_json} does not describe a tagger.")
    return labels


def load_model(run: Run, *, last: bool = False) -> tuple[keras.Model, Vocabulary]:
    """The best model of a run folder, or the last, and its vocabulary. It may come from anybody: see `networks.saved`.

    Raises:
        RunError: the run is no tagger, its files do not belong together, or the last model was not kept.
        WeightsError: the model is missing or damaged, or is none of `networks`.
    """
    labels, vocabulary, model = labels_of(run), Vocabulary.from_json(run.vocabulary), saved.load(run.kept(last))
    outputs = model.output if isinstance(model.output, dict) else {}
    taken = set(labels["parts"]) - {"characters"}
    taken |= {"spelling", "spelling_characters"} if "characters" in labels["parts"] else set()
    fits = isinstance(model.input, dict) and set(model.input) == taken
    fits = fits and list(vocabulary.tags) == labels["classes"]
    fits = fits and set(outputs) == {"tags", "probabilities"}
    fits = fits and tuple(outputs["probabilities"].shape) == (None, None, len(vocabulary.tags))
    fits = fits and model.get_layer("word_vectors").input_dim == vocabulary.sizes["words"]
    if not fits:
        raise RunError(
            f"{run.model_keras}, {run.vocabulary_json.name} and {run.labels_json.name} do not belong together."
        )
    return model, vocabulary


def open_board(plan: Plan, writer: Writer) -> None:
    """What TensorBoard shows of the sentences before the first step."""
    sentences = plan.data.manifest.splits["train"][:20]
    lines = [f"    {' '.join(f'{w}/{t}' for w, t in zip(each.tokens, each.tags, strict=True))}" for each in sentences]
    writer.text("training sentences", "\n\n".join(lines))


def conclude(plan: Plan, fitting: Fitting, run: Run, events: Events, screen: Screen) -> dict[str, Any]:
    """Write the model and its tags; what metrics.json holds of them."""
    data, scheme = plan.data, plan.data.manifest.scheme
    run.write_model(plan.model)
    seen = None
    if scheme != PLAIN:
        seen = surfaces(((each.tokens, each.tags) for each in data.manifest.splits["train"]), scheme)
    judged: dict[str, Any] = {}
    for name, rows in (("validation", data.val), ("test", data.test)):
        if rows is None:
            continue
        guess = [[data.classes[number] for number in each.tags] for each in answers(plan.model, rows)]
        tokens, truth = [each.tokens for each in rows.sentences], [each.tags for each in rows.sentences]
        judged[name] = tagging(truth, guess, scheme, tokens=tokens, seen=seen)
        if name == "test" or data.test is None:
            run.write_tags(_columns(tokens, truth, guess, scheme, data.manifest.source_scheme))
    for name, figures in judged.items():
        final = {key: figures[key] for key in ("f1", "precision", "recall", "token_accuracy") if key in figures}
        events.writer.scalars({f"final/{name}_{key}": value for key, value in final.items()}, events.step)
    events.writer.scalars({"final/seconds": fitting.seconds}, events.step)
    events.writer.finished()
    events.writer.flush()
    return judged


def _columns(
    tokens: Sequence[Sequence[str]], truth: Sequence[Sequence[str]], guess: Sequence[Sequence[str]], scheme: str,
    target: str,
) -> str:  # fmt: skip
    """Sentences in columns: word, true tag, tag that was found, in the spelling of the user's files."""
    found = []
    for words, right, said in zip(tokens, truth, guess, strict=True):
        pair = convert(right, scheme, target), convert(said, scheme, target)
        found += [f"{word}\t{one}\t{other}\n" for word, one, other in zip(words, *pair, strict=True)]
        found.append("\n")
    return "".join(found)
