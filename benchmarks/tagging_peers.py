"""The peers' side of tagging.py: spaCy and Flair, in a Python that has them and need not have kerastk.

    PYTHON benchmarks/tagging_peers.py versions             # which of them are there, as JSON
    PYTHON benchmarks/tagging_peers.py STAGE WORK/.../job.json

A stage, `train` or `answer`, reads what `tagging_ours.py` wrote of the corpus and leaves STAGE.json beside the job.
"""

import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Values = dict[str, Any]

PEERS = ("spacy", "flair")
# Texts that are tagged once before the clock starts.
WARM_TEXTS = 2000
FLAIR_TAG, FLAIR_BATCH = "tag", 32


def versions() -> Values:
    """Python's version and those of the peers; None where one is not installed."""
    found: Values = {"python": platform.python_version()}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def sentences(job: Values, split: str) -> list[Values]:
    """The `words` and `tags` (IOB2, or plain) of each sentence of a split."""
    lines = (Path(job["corpus"]) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def timed(job: Values, tag: Callable[[list[str]], int]) -> Values | None:
    """Words/s of `tag` over raw text, after it has seen a part of it; words are the treebank's. None without texts."""
    raw = json.loads((Path(job["corpus"]) / "texts.json").read_text(encoding="utf-8"))
    if not raw["words"]:
        return None
    times = -(-job["timed_words"] // raw["words"])
    tag(raw["texts"][:WARM_TEXTS])
    begin = time.perf_counter()
    answers = tag(raw["texts"] * times)
    seconds = time.perf_counter() - begin
    return {"words": raw["words"] * times, "answers": answers, "words_per_second": raw["words"] * times / seconds}


# spaCy: a blank English pipeline, as `spacy init config --optimize efficiency` and `spacy train` make it.


class EpochClock:
    """spaCy's `before_update`: when each epoch began, in seconds without those of evaluation and saving."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.paused = 0.0

    def __call__(self, nlp: Any, step: Values) -> None:
        if not self.begins:
            nlp.evaluate, nlp.to_disk = self.pausing(nlp.evaluate), self.pausing(nlp.to_disk)
        if step["epoch"] == len(self.begins):
            self.begins.append(time.perf_counter() - self.paused)

    def pausing(self, function: Callable) -> Callable:
        def paused(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.paused += time.perf_counter() - begin

        return paused


def spacy_train(job: Values) -> Values:
    import spacy
    from spacy.cli.init_config import init_config
    from spacy.cli.train import train
    from spacy.tokens import Doc, DocBin

    folder, vocabulary = Path(job["folder"]), spacy.blank("en").vocab
    for split in ("train", "dev"):
        docs = DocBin()
        for each in sentences(job, split):
            given = {"tags" if job["scheme"] == "plain" else "ents": each["tags"]}
            # Without `spaces` spaCy trains on these very words; with them it would cut the text by its own rules.
            docs.add(Doc(vocabulary, words=each["words"], **given))
        docs.to_disk(folder / f"{split}.spacy")
    clock = EpochClock()
    spacy.registry.callbacks("tagging_clock.v1")(lambda: clock)
    component = "tagger" if job["scheme"] == "plain" else "ner"
    config = init_config(lang="en", pipeline=[component], optimize="efficiency", gpu=False)
    config["system"]["seed"] = job["seed"]
    config["paths"] |= {split: str(folder / f"{split}.spacy") for split in ("train", "dev")}
    config["training"]["before_update"] = {"@callbacks": "tagging_clock.v1"}
    if job["epochs"]:
        config["training"]["max_epochs"] = job["epochs"]
    config.to_disk(folder / "config.cfg")
    train(folder / "config.cfg", folder / "spacy")
    words = sum(len(each["words"]) for each in sentences(job, "train"))
    # The last epoch has no end: it is left out, and so is the first.
    seconds = [end - begin for begin, end in itertools.pairwise(clock.begins)][1:]
    return {"words_per_second": [words / each for each in seconds]}


def spacy_answer(job: Values) -> Values:
    import spacy
    from spacy.tokens import Doc

    nlp = spacy.load(Path(job["folder"]) / "spacy" / "model-best")
    is_plain = job["scheme"] == "plain"
    asked = (Doc(nlp.vocab, words=each["words"]) for each in sentences(job, "test"))
    tags = [[word.tag_ if is_plain else spacy_tag(word) for word in doc] for doc in nlp.pipe(asked)]
    nlp.add_pipe("sentencizer", first=True)

    def tagging(processes: int) -> Callable[[list[str]], int]:
        def tag(texts: list[str]) -> int:
            return sum(len(spacy_spans(doc, is_plain)) for doc in nlp.pipe(texts, n_process=processes))

        return tag

    # More processes are not always faster: spaCy is given the better of the two.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {count: timed(job, tagging(count)) for count in sorted({1, cores})}
    best = max(found, key=lambda count: found[count]["words_per_second"]) if all(found.values()) else None
    prediction = None if best is None else {**found[best], "processes": best}
    return {"scheme": job["scheme"], "tags": tags, "prediction": prediction, "by_processes": found}


def spacy_tag(word: Any) -> str:
    return f"{word.ent_iob_}-{word.ent_type_}" if word.ent_type_ else "O"


def spacy_spans(doc: Any, is_plain: bool) -> list[tuple[str, str, int, int]]:
    """What kerastk gives, but for the probability: text, label, start, end. Sentences are walked through, too."""
    if is_plain:
        return [(word.text, word.tag_, word.idx, word.idx + len(word)) for sent in doc.sents for word in sent]
    return [(each.text, each.label_, each.start_char, each.end_char) for sent in doc.sents for each in sent.ents]


# Flair: its BiLSTM-CRF and `ModelTrainer.train` with their defaults. Its language models and pretrained vectors are
# downloads, so vectors of words and characters are trained from nothing.


def flair_train(job: Values) -> Values:
    os.environ["FLAIR_CACHE_ROOT"] = job["folder"]
    import flair
    import torch
    from flair.data import Corpus, Dictionary
    from flair.datasets import FlairDatapointDataset
    from flair.embeddings import CharacterEmbeddings, OneHotEmbeddings, StackedEmbeddings
    from flair.models import SequenceTagger
    from flair.trainers import ModelTrainer

    flair.set_seed(job["seed"])
    is_plain = job["scheme"] == "plain"
    data = {split: sentences(job, split) for split in ("train", "dev")}
    made = {split: FlairDatapointDataset([flair_sentence(each, is_plain) for each in data[split]]) for split in data}
    corpus = Corpus(**made, sample_missing_splits=False)
    tags, letters = Dictionary(add_unk=False), Dictionary(add_unk=True)
    tags.span_labels = not is_plain
    # Labels of the dev split alone have to be known, or Flair's evaluation raises an error.
    kinds = {tag if is_plain else tag[2:] for rows in data.values() for each in rows for tag in each["tags"]}
    for kind in sorted(kinds - {""}):
        tags.add_item(kind)
    for letter in sorted({letter for each in data["train"] for word in each["words"] for letter in word}):
        letters.add_item(letter)
    embeddings = StackedEmbeddings([OneHotEmbeddings.from_corpus(corpus), CharacterEmbeddings(letters)])
    model = SequenceTagger(embeddings=embeddings, tag_dictionary=tags, tag_type=FLAIR_TAG)
    trainer, begins, seconds = ModelTrainer(model, corpus), [], []
    trainer.register_hook(lambda **_: begins.append(time.perf_counter()), "before_training_epoch")
    trainer.register_hook(lambda **_: seconds.append(time.perf_counter() - begins[-1]), "after_training_epoch")
    trainer.train(Path(job["folder"]) / "flair", **({"max_epochs": job["epochs"]} if job["epochs"] else {}))
    # The best weights are back in it. As a whole: what `SequenceTagger.load` makes of Flair's own file answers
    # otherwise (0.15.1, with vectors of words that are trained from nothing).
    torch.save(model, Path(job["folder"]) / "model.pt")
    words = sum(len(each["words"]) for each in data["train"])
    return {"words_per_second": [words / each for each in seconds[1:]]}


def flair_sentence(row: Values, is_plain: bool) -> Any:
    """A sentence of the corpus with its labels: of words, or of spans."""
    from flair.data import Sentence

    sentence, tags = Sentence(row["words"]), row["tags"]
    if is_plain:
        for word, tag in zip(sentence, tags, strict=True):
            word.add_label(FLAIR_TAG, tag)
        return sentence
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            inner = itertools.takewhile(lambda each, kind=tag[2:]: each == f"I-{kind}", tags[start + 1 :])
            sentence[start : start + 1 + len(list(inner))].add_label(FLAIR_TAG, tag[2:])
    return sentence


def flair_answer(job: Values) -> Values:
    os.environ["FLAIR_CACHE_ROOT"] = job["folder"]
    import torch
    from flair.data import Sentence
    from flair.splitter import SegtokSentenceSplitter

    is_plain = job["scheme"] == "plain"
    model = torch.load(Path(job["folder"]) / "model.pt", weights_only=False)
    asked = [Sentence(each["words"]) for each in sentences(job, "test")]
    # As the network gives them: spans would be mended.
    model.predict(asked, mini_batch_size=FLAIR_BATCH, force_token_predictions=True)
    tags = [[word.get_label(FLAIR_TAG, "O").value for word in sentence] for sentence in asked]
    splitter = SegtokSentenceSplitter()

    def tag(texts: list[str]) -> int:
        total = 0
        for start in range(0, len(texts), WARM_TEXTS):
            found = [each for text in texts[start : start + WARM_TEXTS] for each in splitter.split(text)]
            model.predict(found, mini_batch_size=FLAIR_BATCH)
            total += sum(len(flair_spans(each, is_plain)) for each in found)
        return total

    return {"scheme": "plain" if is_plain else "iobes", "tags": tags, "prediction": timed(job, tag)}


def flair_spans(sentence: Any, is_plain: bool) -> list[tuple[str, str, int, int, float]]:
    """What kerastk gives: text, label, start, end, probability."""
    start, found = sentence.start_position, []
    for each in sentence.tokens if is_plain else sentence.get_spans(FLAIR_TAG):
        label = each.get_label(FLAIR_TAG)
        found.append((each.text, label.value, start + each.start_position, start + each.end_position, label.score))
    return found


STAGES: dict[str, dict[str, Callable[[Values], Values]]] = {
    "spacy": {"train": spacy_train, "answer": spacy_answer},
    "flair": {"train": flair_train, "answer": flair_answer},
}


def main(stage: str, job: Path | None = None) -> None:
    if job is None:
        print(json.dumps(versions()))
        return
    given = json.loads(job.read_text(encoding="utf-8"))
    values = STAGES[given["way"]][stage](given)
    job.with_name(f"{stage}.json").write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
