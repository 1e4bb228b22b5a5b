"""kerastk's side of tagging.py: the corpora, its own training and answers, and the one scorer of all systems' answers.

    python benchmarks/tagging_ours.py STAGE WORK/.../job.json

A stage leaves its values in STAGE.json beside the job.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tagging_peers import sentences, timed

import kerastk
from kerastk.datasets.schemes import PLAIN, convert, faults, spans
from kerastk.datasets.sentence import Sentence
from kerastk.datasets.sequences import open_sentences
from kerastk.evaluation.spans import check_lengths, precision_recall_f1
from kerastk.storage import write_atomic

Values = dict[str, Any]

# What peers get: they read no other scheme.
COMMON = "iob2"
BATCH_WORDS = 8192


def prepare(job: Values) -> Values:
    """Write the corpus for those who cannot read its files: SPLIT.jsonl, with plain tags or IOB2, and texts.json."""
    corpus = Path(job["corpus"])
    found = {split: open_sentences(path) for split, path in job["files"].items()}
    source = found["train"].scheme
    if source is None:
        raise SystemExit(f"{job['files']['train']} has no tags.")
    scheme = PLAIN if source == PLAIN else COMMON
    for split, read in found.items():
        rows = ({"words": each.tokens, "tags": convert(each.tags, source, scheme)} for each in read.sentences)
        write_atomic(corpus / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    raw = list(texts(Path(job["files"]["train"]))) if found["train"].kind == "conllu" else []
    words = found["train"].tokens if raw else 0
    write_atomic(corpus / "texts.json", json.dumps({"texts": raw, "words": words}))
    counts = {split: {"sentences": len(read.sentences), "words": read.tokens} for split, read in found.items()}
    return {"scheme": scheme, "counts": counts, "texts": len(raw)}


def texts(path: Path) -> Iterator[str]:
    """The raw text of a CoNLL-U file, paragraph by paragraph: `# newpar`, `# newdoc` and `# text` say what it was."""
    paragraph: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(("# newpar", "# newdoc")) and paragraph:
                yield " ".join(paragraph)
                paragraph = []
            elif line.startswith("# text ="):
                paragraph.append(line.partition("=")[2].strip())
    if paragraph:
        yield " ".join(paragraph)


def train(job: Values) -> Values:
    """A run with the job's `options`."""
    files = job["files"]
    options = {**job["options"], **({"epochs": job["epochs"]} if job["epochs"] else {})}
    runs = str(Path(job["folder"]) / "runs")
    run = kerastk.train(
        kerastk.Tag(data=files["train"], dev=files["dev"], test=files["test"], seed=job["seed"], runs=runs, **options)
    )
    # The first epoch compiles.
    speeds = [float(row["words_per_second"]) for row in run.log][1:]
    return {"run": str(run.path), "epochs": len(run.log), "words_per_second": speeds}


def answer(job: Values) -> Values:
    """The tags of the test split's words as the network gives them, in the scheme that it learned: `Tagger.tags` would
    mend what breaks it. And the speed of `Tagger.stream` on raw text."""
    from kerastk.datasets.buckets import SentenceRows
    from kerastk.tasks.tag import labels_of
    from kerastk.training.tagging import answers

    tagger = kerastk.load(json.loads((Path(job["folder"]) / "train.json").read_text())["run"])
    asked = [Sentence(tuple(each["words"])) for each in sentences(job, "test")]
    rows = SentenceRows(
        asked, tagger.vocabulary, batch_words=BATCH_WORDS, training=False, parts=labels_of(tagger.run)["parts"]
    )
    tags = [[tagger.classes[number] for number in each.tags] for each in answers(tagger.model, rows)]
    prediction = timed(job, lambda given: sum(len(found) for found in tagger.stream(given)))
    return {"scheme": tagger.scheme, "tags": tags, "prediction": prediction}


def score(job: Values) -> Values:
    """Written answers against the truth: F1 of spans as conlleval counts them, or the accuracy of plain tags.

    `faults` is how often the answers break the scheme that they are spelt in.
    """
    given = json.loads((Path(job["folder"]) / "answer.json").read_text())
    truth, guess, scheme = [each["tags"] for each in sentences(job, "test")], given["tags"], given["scheme"]
    check_lengths(truth, guess)
    words = sum(len(tags) for tags in truth)
    found: Values = {"sentences": len(truth), "words": words}
    if scheme == PLAIN:
        pairs = (pair for one, other in zip(truth, guess, strict=True) for pair in zip(one, other, strict=True))
        return {**found, "score": sum(one == other for one, other in pairs) / words, "figure": "accuracy"}
    right = guessed = true = 0
    for one, other in zip(truth, guess, strict=True):
        ours, theirs = set(spans(one, COMMON)), set(spans(other, scheme))
        right, guessed, true = right + len(ours & theirs), guessed + len(theirs), true + len(ours)
    figures = precision_recall_f1(right, guessed, true)
    broken = sum(len(faults(tags, scheme)) for tags in guess)
    return {**found, **figures, "score": figures["f1"], "figure": "F1", "faults": broken}


STAGES: dict[str, Callable[[Values], Values]] = {"prepare": prepare, "train": train, "answer": answer, "score": score}


def main(stage: str, job: Path) -> None:
    values = STAGES[stage](json.loads(job.read_text()))
    write_atomic(job.with_name(f"{stage}.json"), json.dumps(values))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
