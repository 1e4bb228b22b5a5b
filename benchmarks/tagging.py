"""kerastk's tagger beside spaCy's and Flair's: the same sentences, the same scorer, side by side in one run.

    python benchmarks/tagging.py --peers PYTHON                  # EWT, ATIS and WNUT-17; three seeds; hours on 2 cores
    python benchmarks/tagging.py --data notes=corpus/ --seeds 0 --only kerastk,softmax --results mine.md

Training, answers and scoring are processes of their own; training is measured from its start to its end. What is
finished stands in WORK/measurements.jsonl at once, and a benchmark started again with the same --work goes on from
there.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from comparing import (
    Part,
    Row,
    by_way,
    finish,
    judged,
    measure_missing,
    newest,
    numbers,
    shared_folder,
    some_of,
    when_and_where,
)
from measuring import Ledger, Usage, code_hash, machine, measure, versions

import kerastk
from kerastk import recipes
from kerastk.storage import write_atomic

HERE = Path(__file__).resolve().parent
CORPORA = EWT, ATIS, WNUT = "ud_ewt", "atis", "wnut17"
SPLITS = ("train", "dev", "test")
ENDINGS = (".conll", ".conllu", ".jsonl", ".conll.gz", ".conllu.gz", ".jsonl.gz")
GLOVE = "glove.twitter.25d.12k.txt"

# The recipes that ship for the corpora (of others, the defaults), and what each of kerastk's ways has beside them.
# Their figures count only for the code as it is now.
RECIPES = {EWT: "pos", ATIS: "slots", WNUT: "ner"}
OURS: dict[str, dict[str, str]] = {"kerastk": {}, "softmax": {"output": "softmax"}, "vectors": {}}
PEERS = ("spacy", "flair")
WAYS = (*OURS, *PEERS)
# Those whose answers must hold no illegal transition.
CRF = ("kerastk", "vectors")

# What kerastk claims of itself, in points and words/s.
EWT_ACCURACY, ATIS_F1, ABOVE_SPACY, ABOVE_RANDOM = 95.0, 95.5, 3, 3
TRAINING_SPEED, PREDICTION_SPEED = 6_500, 20_000
# Words of raw text that each system tags at least against the clock; a try (--epochs) goes through the text once.
TIMED_WORDS = 250_000
SEEDS = 3


@dataclass(frozen=True)
class Corpus:
    """A folder with a file for each split; `digest` is of their content."""

    name: str
    files: dict[str, str]
    digest: str


@dataclass(frozen=True)
class Setting:
    """What all processes of a benchmark share. `peers` is another Python, `peer_versions` what it has.

    `epochs` are those of a try, `flair_epochs` those of Flair, whose own 100 take hours; None for each system's own.
    """

    work: Path
    vectors: Path
    peers: str | None
    peer_versions: dict[str, str | None]
    epochs: int | None
    flair_epochs: int | None

    def epochs_of(self, way: str) -> int | None:
        """The epochs that a way is held to."""
        return self.epochs or (self.flair_epochs if way == "flair" else None)


# Measuring: the parent. It must stay small: whatever computes is a process of `tagging_ours` or `tagging_peers`.


def process(script: str, stage: str, job: Path, *, python: str) -> tuple[Usage, Row]:
    """Run a stage of a job to its end: what it took, and the values that it left."""
    usage = measure(
        [python, str(HERE / script), stage, str(job)],
        log=job.with_name(f"{stage}.log"),
        environment={"KERASTK_CACHE": str(job.parent / "cache"), "KERAS_BACKEND": "tensorflow"},
    )
    return usage, json.loads(job.with_name(f"{stage}.json").read_text())


def new_job(folder: Path, **values: Any) -> Path:
    """The file of a job in a folder of its own, new."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    job = folder / "job.json"
    write_atomic(job, json.dumps({"folder": str(folder), **values}))
    return job


def ensure_corpus(corpus: Corpus, work: Path) -> Row:
    """Write the corpus for peers and scorer, unless it is there and whole; what `prepare` says of it."""
    folder = work / corpus.name / "corpus"
    record = folder / "prepare.json"
    if record.exists():
        if json.loads((folder / "job.json").read_text())["digest"] != corpus.digest:
            raise click.ClickException(f"{folder} is of other files than now; choose another --work.")
        return json.loads(record.read_text())
    job = new_job(folder, corpus=str(folder), files=corpus.files, digest=corpus.digest)
    return process("tagging_ours.py", "prepare", job, python=sys.executable)[1]


def run_way(corpus: Corpus, way: str, seed: int, setting: Setting) -> list[Row]:
    """The figures of one way: trained, asked and scored, each in a process of its own."""
    scheme = ensure_corpus(corpus, setting.work)["scheme"]
    place = setting.work / corpus.name
    options = recipe_of(corpus) | OURS.get(way, {}) | ({"vectors": str(setting.vectors)} if way == "vectors" else {})
    job = new_job(
        place / f"{way}-{seed}", way=way, corpus=str(place / "corpus"), files=corpus.files, scheme=scheme, seed=seed,
        epochs=setting.epochs_of(way), options=options, timed_words=1 if setting.epochs else TIMED_WORDS,
    )  # fmt: skip
    script, python = ("tagging_ours.py", sys.executable) if way in OURS else ("tagging_peers.py", setting.peers)
    usage, trained = process(script, "train", job, python=python)
    _, answered = process(script, "answer", job, python=python)
    _, scored = process("tagging_ours.py", "score", job, python=sys.executable)
    speeds = trained["words_per_second"]
    prediction = answered["prediction"]
    row = {
        **asdict(usage), **scored,
        "training_speed": statistics.median(speeds) if speeds else None, "timed_epochs": len(speeds),
        "prediction_speed": prediction and prediction["words_per_second"],
        "prediction_processes": prediction and prediction.get("processes", 1),
    }  # fmt: skip
    return [row]


def recipe_of(corpus: Corpus) -> Row:
    """What the recipe that ships for a corpus has other than the defaults."""
    if corpus.name not in RECIPES:
        return {}
    recipe, default = getattr(recipes, RECIPES[corpus.name]), kerastk.Tag()
    names = {each.name for each in dataclasses.fields(recipe)} - {"data", "dev", "test"}
    return {name: getattr(recipe, name) for name in sorted(names) if getattr(recipe, name) != getattr(default, name)}


def parts(corpora: list[Corpus], seeds: list[int], ways: list[str], setting: Setting) -> Iterator[Part]:
    """Every way on every corpus with every seed, with vectors on one corpus alone; see `done` for the marks."""
    here = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    for corpus, seed, way in itertools.product(corpora, seeds, ways):
        if way == "vectors" and corpus.name != WNUT:
            continue
        place = {"data": corpus.name, "seed": seed, "way": way}
        version = code_hash(Path(kerastk.__file__).parent) if way in OURS else setting.peer_versions[way]
        marks = {"digest": corpus.digest, "version": version, "epochs": setting.epochs_of(way)}
        if way in OURS:
            marks["recipe"] = recipe_of(corpus)
        if way == "vectors":
            marks["vectors"] = digest([setting.vectors])
        python = setting.peer_versions["python"] if way in PEERS else here["python"]
        run = functools.partial(run_way, corpus, way, seed, setting)
        yield Part(f"{corpus.name}, seed {seed}: {way}", place, marks, {**here, "way_python": python}, run)


def shown(row: Row) -> str:
    return f"{row['figure']} {100 * row['score']:.2f}, {row['seconds']:.0f} s of training"


def done(ledger: Ledger, place: Row, marks: Row) -> bool:
    """Whether this is measured: with the same files, and of the code or the peer as it is now."""
    rows = [row for row in ledger.rows() if place.items() <= row.items()]
    if any(row["digest"] != marks["digest"] for row in rows):
        raise click.ClickException(
            f"{ledger.path} holds figures of {place['data']} with other files; choose another --work."
        )
    return any(marks.items() <= row.items() for row in rows)


# The report.


def report(rows: list[Row]) -> str:
    """The table, where and when it was measured, and which claims hold; as Markdown."""
    rows = newest(rows)
    found = by_way(rows)
    return "\n\n".join(
        [
            "`python benchmarks/tagging.py`: each system on the very same sentences, its answers scored by one scorer.",
            table(found),
            circumstances(rows),
            "\n".join(f"- {line}" for line in claims(found)),
        ]
    )


def table(by_way: dict[tuple[str, str], dict[int, Row]]) -> str:
    """A line for each corpus and way."""
    lines = [
        "| data | way | figure | test, %: mean ± deviation (seeds) | training, words/s | prediction, words/s | "
        "illegal transitions | seconds of training, median | peak memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (data, way), by_seed in sorted(by_way.items(), key=lambda item: (in_order(item[0][0]), WAYS.index(item[0][1]))):
        rows = list(by_seed.values())
        scores = [100 * row["score"] for row in rows]
        each = ", ".join(f"{seed}: {100 * row['score']:.2f}" for seed, row in by_seed.items())
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        broken = [row["faults"] for row in rows if "faults" in row]
        limit = f", {rows[0]['epochs']} epochs" if way == "flair" and rows[0]["epochs"] else ""
        cells = [
            data, f"{way}{limit}", rows[0]["figure"], f"{statistics.mean(scores):.2f}{spread} ({each})",
            speed(rows, "training_speed"), speed(rows, "prediction_speed"), f"{sum(broken)}" if broken else "-",
            f"{statistics.median(row['seconds'] for row in rows):.0f}", f"{max(row['memory_mb'] for row in rows):.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def in_order(data: str) -> tuple[int, str]:
    """The known corpora first."""
    return CORPORA.index(data) if data in CORPORA else len(CORPORA), data


def speed(rows: Iterable[Row], name: str) -> str:
    found = median(rows, name)
    return "-" if found is None else f"{found:,.0f}"


def median(rows: Iterable[Row], name: str) -> float | None:
    """The median over those rows that have the value."""
    values = [row[name] for row in rows if row[name] is not None]
    return statistics.median(values) if values else None


def circumstances(rows: list[Row]) -> str:
    """Date, machine and versions, as the measurements recorded them, and what the columns are."""
    text = when_and_where(rows)
    codes = sorted({row["version"] for row in rows if row["way"] in OURS})
    text += f" (sources {', '.join(codes)})" if codes else ""
    peers = [
        f"{row['way']} {row['version']} on python {row['setting']['way_python']}" for row in rows if row["way"] in PEERS
    ]
    text += "".join(f"; {peer}" for peer in dict.fromkeys(peers))
    processes = sorted({row["prediction_processes"] for row in rows if row["way"] == "spacy"} - {None})
    text += (
        ". Seconds and memory are those of the whole training process. Training: words/s of all epochs but the first, "
        "without evaluation, their median. Prediction: raw text with words and sentences found, "
        f"at least {TIMED_WORDS:,} words as the treebank counts them, after the first 2,000 texts were tagged once."
    )
    if processes:
        text += f" spaCy's is the better of one process and one a core (here {' and '.join(map(str, processes))})."
    return text


def claims(by_way: dict[tuple[str, str], dict[int, Row]]) -> list[str]:
    """What kerastk claims of itself, each with `holds`, `FAILS` or `not decided` in front."""

    def of(data: str, way: str) -> dict[int, Row]:
        return by_way.get((data, way), {})

    return [
        score_claim(EWT, of(EWT, "kerastk"), EWT_ACCURACY),
        score_claim(ATIS, of(ATIS, "kerastk"), ATIS_F1),
        gain_claim("kerastk", of(WNUT, "kerastk"), "spaCy, both without vectors", of(WNUT, "spacy"), ABOVE_SPACY),
        gain_claim("kerastk with vectors", of(WNUT, "vectors"), "without", of(WNUT, "kerastk"), ABOVE_RANDOM),
        *(crf_claim(data, of(data, "kerastk"), of(data, "softmax")) for data in CORPORA),
        legal_claim([row for (_, way), rows in by_way.items() if way in CRF for row in rows.values()]),
        speed_claim("training", of(EWT, "kerastk"), TRAINING_SPEED),
        speed_claim("prediction", of(EWT, "kerastk"), PREDICTION_SPEED),
    ]


def points(rows: dict[int, Row]) -> list[float]:
    return [100 * row["score"] for row in rows.values()]


def score_claim(data: str, rows: dict[int, Row], least: float) -> str:
    claim = f"{data}: mean test figure of kerastk at least {least} %"
    if len(rows) < SEEDS:
        return judged(claim, None, f"{len(rows)} of {SEEDS} seeds measured")
    mean = statistics.mean(points(rows))
    return judged(claim, mean >= least, f"{mean:.2f} over {len(rows)} seeds")


def gain_claim(name: str, rows: dict[int, Row], other: str, others: dict[int, Row], least: float) -> str:
    claim = f"{WNUT}: mean F1 of {name} at least {least:g} points above {other}"
    if min(len(rows), len(others)) < SEEDS:
        return judged(claim, None, f"{len(rows)} and {len(others)} of {SEEDS} seeds measured")
    gain = statistics.mean(points(rows)) - statistics.mean(points(others))
    return judged(claim, gain >= least, f"{gain:+.2f} points, {len(rows)} and {len(others)} seeds")


def crf_claim(data: str, rows: dict[int, Row], others: dict[int, Row]) -> str:
    """The standard error is that of the difference of two means over seeds, which do not pair two networks' draws."""
    claim = f"{data}: the CRF not below softmax by more than a standard error of the difference"
    if min(len(rows), len(others)) < SEEDS:
        return judged(claim, None, f"{len(rows)} and {len(others)} of {SEEDS} seeds measured")
    gain = statistics.mean(points(rows)) - statistics.mean(points(others))
    error = sum(statistics.variance(points(each)) / len(each) for each in (rows, others)) ** 0.5
    return judged(claim, gain >= -error, f"{gain:+.2f} points, standard error {error:.2f}")


def legal_claim(rows: list[Row]) -> str:
    claim = "no illegal transition in the CRF's answers"
    counted = [row for row in rows if "faults" in row]
    broken, words = sum(row["faults"] for row in counted), sum(row["words"] for row in counted)
    if not broken and not {ATIS, WNUT} <= {row["data"] for row in counted}:
        return judged(claim, None, f"not measured on both {ATIS} and {WNUT}")
    return judged(claim, broken == 0, f"{broken} in {words:,} tags of {len(counted)} runs")


def speed_claim(what: str, rows: dict[int, Row], least: int) -> str:
    claim = f"{EWT}: {what} at {least:,} words/s or more"
    found = median(rows.values(), f"{what}_speed")
    if found is None:
        return judged(claim, None)
    return judged(claim, found >= least, f"{found:,.0f}, median of {len(rows)} seeds")


# The command.


def digest(paths: Iterable[Path | str]) -> str:
    """The start of a hash over the content of files."""
    found = hashlib.sha256()
    for path in paths:
        found.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return found.hexdigest()[:10]


def folders(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> dict[str, Path]:
    """`NAME=DIR` for each corpus; by default the shared ones."""
    found = {}
    for each in value:
        name, equals, folder = each.partition("=")
        if not (name and equals and folder) or Path(name).name != name or name in found:
            raise click.BadParameter(f"must be NAME=DIR, each name once; got {each!r}.")
        found[name] = Path(folder)
    return found or {name: shared_folder() / "data" / "tagging" / name for name in CORPORA}


def present(folders: dict[str, Path]) -> list[Corpus]:
    """The corpora that are there; says which are not."""
    found = []
    for name, folder in folders.items():
        candidates = {split: [folder / f"{split}{ending}" for ending in ENDINGS] for split in SPLITS}
        files = {split: str(path.resolve()) for split in SPLITS for path in candidates[split] if path.is_file()}
        missing = [split for split in SPLITS if split not in files]
        if missing:
            click.echo(f"skipped: {name}: no {' and no '.join(missing)} in {folder} ({', '.join(ENDINGS)})", err=True)
            continue
        found.append(Corpus(name, files, digest(files.values())))
    return found


def peer_versions(python: str | None) -> dict[str, str | None]:
    """What the peers' Python has; nothing without one."""
    if python is None:
        return {"python": None, **dict.fromkeys(PEERS)}
    try:
        command = [python, str(HERE / "tagging_peers.py"), "versions"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise click.BadParameter(f"--peers must be a Python; {python!r} does not run: {error}.") from None


def possible(ways: list[str], setting: Setting) -> list[str]:
    """The ways that can run here; says which cannot, and why."""
    found = []
    for way in ways:
        reason = None
        if way in PEERS and setting.peers is None:
            reason = "name a Python that has it with --peers"
        elif way in PEERS and setting.peer_versions[way] is None:
            reason = f"{setting.peers} does not have it"
        elif way == "vectors" and not setting.vectors.is_file():
            reason = f"no vectors at {setting.vectors}"
        if reason is None:
            found.append(way)
        else:
            click.echo(f"skipped: {way}: {reason}", err=True)
    return found


@click.command(
    help="kerastk's tagger, with and without CRF and vectors, spaCy's and Flair's on the very same sentences."
)
@click.option(
    "--data", multiple=True, callback=folders, metavar="NAME=DIR",
    help="A folder with train, dev and test; may be repeated.  [default: the shared ud_ewt, atis and wnut17]",
)  # fmt: skip
@click.option("--vectors", type=Path, help=f"Word vectors for {WNUT}.  [default: the shared {GLOVE}]")
@click.option("--peers", help="The Python that has spaCy or Flair.")
@click.option("--seeds", default="0,1,2", show_default=True, callback=numbers, help="Seeds of weights and order.")
@click.option("--only", default=",".join(WAYS), show_default=True, callback=some_of(WAYS), help="Which ways to run.")
@click.option("--epochs", type=click.IntRange(1), help="Of all systems, to try the benchmark; writes no results.")
@click.option(
    "--flair-epochs", type=click.IntRange(1), help="Of Flair alone, which else takes up to 100; its row says so."
)
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the table goes.")
@click.option("--work", type=Path, default=HERE.parent / "build" / "tagging-benchmark", help="Intermediate files.")
@click.option("--report-only", is_flag=True, help="Write the table of what is measured; measure nothing.")
def main(
    data: dict[str, Path],
    vectors: Path | None,
    peers: str | None,
    seeds: list[int],
    only: list[str],
    epochs: int | None,
    flair_epochs: int | None,
    results: Path,
    work: Path,
    report_only: bool,
) -> None:
    # So that a terminated benchmark takes the process it waits for with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = (work / f"{epochs}-epochs" if epochs else work).resolve()
    ledger = Ledger(work / "measurements.jsonl")
    failures = 0
    if not report_only:
        vectors = (vectors or shared_folder() / "data" / "tagging" / GLOVE).resolve()
        setting = Setting(work, vectors, peers, peer_versions(peers), epochs, flair_epochs)
        wanted = parts(present(data), seeds, possible(only, setting), setting)
        failures = measure_missing(wanted, ledger, done=done, shown=shown)
    trial = "--epochs" if epochs else None
    finish(ledger.rows(), ledger, results, section="tagging", report=report, failures=failures, trial=trial)


if __name__ == "__main__":
    main()
