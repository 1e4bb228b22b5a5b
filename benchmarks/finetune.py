"""kerastk against the plain Keras transfer-learning guide and a logistic regression: one split, one weights file.

    python benchmarks/finetune.py                                # flowers5, caltech24; three splits; hours on 2 cores
    python benchmarks/finetune.py --data photos/ --seeds 0 --only kerastk,guide

Each way runs in a process of its own, which is measured from its start to its end. What is finished stands in
WORK/measurements.jsonl at once, and a benchmark started again with the same --work goes on from there.
"""

import functools
import itertools
import json
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
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
from measuring import Ledger, Usage, code_hash, machine, measure, memory_mb, versions

import kerastk
from kerastk.networks.bases import BASES
from kerastk.storage import write_atomic

HERE = Path(__file__).resolve().parent
BASE = "mobilenet_v2"
IMAGE_SIZE = BASES[BASE].image_size
BATCH = 32
SPLITS = ("train", "val", "test")
GUIDE_FROZEN_EPOCHS, GUIDE_UNFROZEN_EPOCHS = 10, 5
PROBE_CS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
# What kerastk claims of itself, on the data sets of these names.
FLOWERS, FLOWERS_ACCURACY, FLOWERS_SEEDS = "flowers5", 0.91, 3
CALTECH = "caltech24"
LONGEST_SECONDS = 600

# Ways whose figures count only for the code as it is now.
OURS = ("kerastk", "solved")
SOONER, FASTER, BETTER = 8, 3, 0.05


@dataclass(frozen=True)
class Job:
    """One process: `way` is a key of WORKERS; `folder` belongs to the data set and the split seed."""

    way: str
    data: str
    weights: str
    seed: int
    quick: bool
    folder: str
    started: float
    # Of a process that scores: whose models.
    trained: str = ""

    @property
    def split(self) -> SimpleNamespace:
        """What `write_split` recorded: data, sha256, classes, skipped, files (split -> [(file, class number)])."""
        record = json.loads((Path(self.folder) / "split.json").read_text())
        root = Path(self.folder)
        record["files"] = {
            name: [(root / file, number) for file, number in files] for name, files in record["files"].items()
        }
        return SimpleNamespace(**record)

    @property
    def scratch(self) -> Path:
        """A folder of this process's own; new at its start."""
        return Path(self.folder) / self.way


# The ways. Each returns its rows: its name, and the model it saved (which `score` judges in a process of its own) or
# its accuracy and `hits`, a mark for each test photo of the split.


def write_split(job: Job) -> list[Row]:
    """Write the photos of kerastk's own split as FOLDER/{train,val,test}/<label>/<n>.jpg, and split.json.

    Photos that tf.io cannot decode are named <n>.other, which `image_dataset_from_directory` passes over.
    """
    opened = kerastk.open_data(kerastk.Finetune(data=job.data, base=BASE, split_seed=job.seed))
    classes = opened.classes
    files: dict[str, list] = {name: [] for name in SPLITS}
    skipped = 0
    for name in SPLITS:
        for label in classes:
            (Path(job.folder) / name / label).mkdir(parents=True)
        for number, photo in enumerate(opened.manifest.splits[name]):
            data = opened.look.source.read(photo.path)
            plain = tensorflow_decodes(data)
            skipped += not plain
            file = f"{name}/{photo.label}/{number:06d}.{'jpg' if plain else 'other'}"
            (Path(job.folder) / file).write_bytes(data)
            files[name].append((file, classes.index(photo.label)))
    if not files["test"]:
        raise click.ClickException(f"{job.data} comes without a test split; there is nothing to compare by.")
    record = {"data": job.data, "sha256": opened.manifest.sha256, "classes": classes, "skipped": skipped}
    write_whole(Path(job.folder) / "split.json", {**record, "files": files})
    return []


def tensorflow_decodes(data: bytes) -> bool:
    """Whether `image_dataset_from_directory` would get through these bytes."""
    import tensorflow

    try:
        tensorflow.io.decode_image(data, channels=3, expand_animations=False)
    except tensorflow.errors.InvalidArgumentError:
        return False
    return True


def kerastk_way(job: Job) -> list[Row]:
    """kerastk with its defaults."""
    return [kerastk_run(job, "kerastk", **({"epochs": 1} if job.quick else {}))]


def solved_way(job: Job) -> list[Row]:
    """kerastk's solved probe alone."""
    return [kerastk_run(job, "solved probe", unfreeze="head")]


def kerastk_run(job: Job, way: str, **options: Any) -> Row:
    recipe = kerastk.Finetune(
        data=job.data, base=BASE, weights=job.weights, split_seed=job.seed, runs=str(job.scratch / "runs"), **options
    )
    run = kerastk.train(recipe)
    if run.data["sha256"] != job.split.sha256:
        raise click.ClickException("kerastk now splits this data otherwise; start anew with another --work.")
    return {"way": way, "model": str(run.model_keras)}


def guide_way(job: Job) -> list[Row]:
    """The guide as it stands: https://keras.io/guides/transfer_learning, with its two stages."""
    import resource

    import keras

    keras.utils.set_random_seed(job.seed)
    frozen_epochs, unfrozen_epochs = (1, 1) if job.quick else (GUIDE_FROZEN_EPOCHS, GUIDE_UNFROZEN_EPOCHS)
    train, val = (directory_data(job, name) for name in ("train", "val"))
    base, model = guide_model(len(job.split.classes), job.weights)

    def stage(way: str, optimizer: keras.optimizers.Optimizer, epochs: int) -> Row:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
        model.fit(train, validation_data=val, epochs=epochs, verbose=2)
        path = job.scratch / f"{epochs}.keras"
        model.save(path)
        return {"way": way, "model": str(path), "skipped": job.split.skipped}

    first = stage(f"guide, {frozen_epochs} epochs frozen", keras.optimizers.Adam(), frozen_epochs)
    first["seconds"] = time.time() - job.started
    first["memory_mb"] = memory_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    base.trainable = True
    return [
        first,
        stage(f"guide, then {unfrozen_epochs} epochs unfrozen", keras.optimizers.Adam(1e-5), unfrozen_epochs),
    ]


def score(job: Job) -> list[Row]:
    """The accuracy on the test split of the models that another process saved; plain Keras opens them."""
    import keras

    rows = json.loads((Path(job.folder) / job.trained / "rows.json").read_text())
    for row in (row for row in rows if "model" in row):
        model = keras.saving.load_model(row["model"], safe_mode=True, compile=False)
        row |= (guide_score if job.trained == "guide" else kerastk_score)(job, model, Path(row.pop("model")))
    return rows


def kerastk_score(job: Job, model: Any, path: Path) -> Row:
    labels = json.loads((path.parent / "labels.json").read_text())
    files = job.split.files["test"]
    answers = answers_of(model, files, size=labels["image_size"], resize=labels["resize"])
    return scored([row.argmax() == number for row, (_, number) in zip(answers, files, strict=True)])


def guide_score(job: Job, model: Any, path: Path) -> Row:
    """Photos are read as the guide reads them; those that tf.io does not decode are left out."""
    test = directory_data(job, "test")
    right = [model.predict_on_batch(photos).argmax(axis=1) == numbers for photos, numbers in test.as_numpy_iterator()]
    by_file = dict(zip(test.file_paths, (hit for batch in right for hit in batch), strict=True))
    return scored([by_file.get(str(file)) for file, _ in job.split.files["test"]])


def directory_data(job: Job, name: str) -> Any:
    """A split as the guide reads it, a tf.data.Dataset; shuffled for training."""
    import keras
    import tensorflow

    data = keras.utils.image_dataset_from_directory(
        Path(job.folder) / name, class_names=job.split.classes, image_size=(IMAGE_SIZE, IMAGE_SIZE), batch_size=BATCH,
        shuffle=name == "train", seed=job.seed,
    )  # fmt: skip
    paths = data.file_paths
    data = data.prefetch(tensorflow.data.AUTOTUNE)
    data.file_paths = paths
    return data


def guide_model(classes: int, weights: str) -> tuple[Any, Any]:
    """The guide's base, frozen, and the model around it that gives logits."""
    import keras

    base = pretrained(weights)
    base.trainable = False
    photo = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    x = keras.layers.RandomFlip("horizontal")(photo)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return base, keras.Model(photo, keras.layers.Dense(classes)(x))


def probe_way(job: Job) -> list[Row]:
    """Logistic regression on the pooled features of one plain view; C is chosen on the validation split."""
    import keras
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    photo = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), dtype="uint8")
    maps = pretrained(job.weights)(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(photo), training=False)
    network = keras.Model(photo, keras.layers.GlobalAveragePooling2D()(maps))
    resize = kerastk.Finetune().resize
    files = job.split.files
    features = {name: answers_of(network, files[name], size=IMAGE_SIZE, resize=resize) for name in SPLITS}
    truth = {name: np.array([number for _, number in files[name]]) for name in SPLITS}

    fitted = []
    for c in PROBE_CS[4:5] if job.quick else PROBE_CS:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
        fitted.append(probe.fit(features["train"], truth["train"]))
    # Of equally good ones the first: the most regularised.
    best = max(fitted, key=lambda probe: probe.score(features["val"], truth["val"]))
    return [{"way": "probe", **scored(best.predict(features["test"]) == truth["test"]), "c": best[-1].C}]


def pretrained(weights: str) -> Any:
    """The base by plain Keras: scaled photos -> maps."""
    import keras

    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    return keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights=weights)


def answers_of(model: Any, files: list[tuple[Path, int]], *, size: int, resize: str) -> Any:
    """What the model says to the photos, decoded by kerastk: (files, outputs) float32."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from kerastk.datasets.images import decode

    answers = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            photos = list(pool.map(lambda item: decode(item[0].read_bytes(), size, resize=resize), batch))
            answers.append(np.asarray(model.predict_on_batch(np.stack(photos))))
    return np.concatenate(answers)


def scored(hits: Any) -> Row:
    """Accuracy, and a mark for each test photo: 1 right, 0 wrong, - not asked."""
    marks = "".join("-" if hit is None else "1" if hit else "0" for hit in hits)
    asked = marks.count("1") + marks.count("0")
    return {"accuracy": marks.count("1") / asked, "photos": asked, "hits": marks}


WORKERS: dict[str, Callable[[Job], list[Row]]] = {
    "split": write_split, "solved": solved_way, "kerastk": kerastk_way, "guide": guide_way, "probe": probe_way,
    "score": score,
}  # fmt: skip
WAYS = tuple(way for way in WORKERS if way not in ("split", "score"))


def write_whole(path: Path, content: Any) -> None:
    """JSON that appears whole or not at all."""
    write_atomic(path, json.dumps(content))


# Measuring: the parent. It must stay small, so whatever needs Keras is done by the processes above.


def run_job(way: str, data: Path, *, weights: Path, seed: int, quick: bool, work: Path) -> list[Row]:
    """The rows of one process, with its seconds and memory where it does not give them itself.

    Its cache is new, so kerastk looks at every photo in the time that is measured.
    """
    folder = work / f"{data_name(data)}-{seed}"

    def process(name: str, trained: str = "") -> tuple[Usage, list[Row]]:
        scratch = folder / name
        if scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True)
        task = scratch / "job.json"
        write_whole(task, asdict(Job(name, str(data), str(weights), seed, quick, str(folder), time.time(), trained)))
        usage = measure(
            [sys.executable, str(HERE / "finetune.py"), "--worker", str(task)],
            log=scratch / "log.txt",
            environment={"KERASTK_CACHE": str(scratch / "cache"), "KERAS_BACKEND": "tensorflow"},
        )
        return usage, json.loads((scratch / "rows.json").read_text())

    usage, rows = process(way)
    if any("model" in row for row in rows):
        _, rows = process("score", way)
    # Activations of hundreds of photos are no result.
    shutil.rmtree(folder / way / "cache", ignore_errors=True)
    return [{**asdict(usage), **row} for row in rows]


def run_worker(task: Path) -> None:
    """The other side of `run_job`."""
    job = Job(**json.loads(task.read_text()))
    rows = WORKERS[job.way](job)

    import keras

    gpus = len(keras.distribution.list_devices("gpu"))
    write_whole(job.scratch / "rows.json", [{**row, "gpus": gpus} for row in rows])


def ensure_split(data: Path, *, weights: Path, seed: int, work: Path) -> None:
    """Write the split of (data, seed), unless it is there and whole."""
    folder = work / f"{data_name(data)}-{seed}"
    record = folder / "split.json"
    if record.exists():
        if json.loads(record.read_text())["data"] != str(data):
            raise click.ClickException(f"{folder} is of other data than {data}; choose another --work.")
        return
    if folder.exists():
        shutil.rmtree(folder)
    run_job("split", data, weights=weights, seed=seed, quick=False, work=work)


def data_name(data: Path) -> str:
    """`flowers5` for `flowers5.zip`; what results are listed under."""
    return data.stem if data.is_file() else data.name


def parts(
    found: list[Path], seeds: list[int], ways: list[str], *, weights: Path, quick: bool, work: Path
) -> Iterator[Part]:
    """Every way on every split of every data set; each marked with the code as it is when its turn comes."""
    setting = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    for data, seed, way in itertools.product(found, seeds, ways):
        place = {"data": data_name(data), "seed": seed, "job": way}
        marks = {"weights": weights.name, "code": code_hash(Path(kerastk.__file__).parent), "quick": quick}
        run = functools.partial(run_way, way, data, weights=weights, seed=seed, quick=quick, work=work)
        yield Part(f"{place['data']}, split {seed}: {way}", place, marks, setting, run)


def run_way(way: str, data: Path, *, weights: Path, seed: int, quick: bool, work: Path) -> list[Row]:
    """The rows of a way, after the split that it needs."""
    ensure_split(data, weights=weights, seed=seed, work=work)
    return run_job(way, data, weights=weights, seed=seed, quick=quick, work=work)


def shown(row: Row) -> str:
    return f"{row['accuracy']:.3f} in {row['seconds']:.0f} s"


def done(ledger: Ledger, place: Row, marks: Row) -> bool:
    """Whether this is measured; kerastk's own figures count only for the code as it is now."""
    rows = [row for row in ledger.rows() if place.items() <= row.items()]
    other = [row["weights"] for row in rows if row["weights"] != marks["weights"]]
    if other:
        raise click.ClickException(f"{ledger.path} holds figures with {other[0]}; choose another --work.")
    return any(row["code"] == marks["code"] or row["job"] not in OURS for row in rows)


# The report.


def report(rows: list[Row]) -> str:
    """The table, where and when it was measured, and which claims hold; as Markdown."""
    rows = newest(rows)
    found = by_way(rows)
    return "\n\n".join(
        [
            f"`python benchmarks/finetune.py`: `{BASE}` at {IMAGE_SIZE} px, each way on the very same splits.",
            table(found),
            circumstances(rows),
            "\n".join(f"- {line}" for line in claims(found)),
        ]
    )


def table(by_way: dict[tuple[str, str], dict[int, Row]]) -> str:
    """A line for each data set and way."""
    lines = [
        "| data | way | test accuracy: mean (split seeds) | seconds, median | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    for (data, way), by_seed in sorted(by_way.items(), key=lambda item: item[0][0] == CALTECH):
        accuracies = {seed: row["accuracy"] for seed, row in by_seed.items()}
        each = ", ".join(f"{seed}: {accuracy:.3f}" for seed, accuracy in accuracies.items())
        seconds = statistics.median(row["seconds"] for row in by_seed.values())
        memory = max(row["memory_mb"] for row in by_seed.values())
        mean = statistics.mean(accuracies.values())
        lines.append(f"| {data} | {way} | {mean:.3f} ({each}) | {seconds:.0f} | {memory:.0f} |")
    return "\n".join(lines)


def circumstances(rows: list[Row]) -> str:
    """Date, machine, versions and weights, as the measurements recorded them."""
    gpus = max(row["gpus"] for row in rows)
    codes = sorted({row["code"] for row in rows if row["job"] in OURS})
    weights = sorted({row["weights"] for row in rows})
    text = when_and_where(rows)
    text += f" (sources {', '.join(codes)})" if codes else ""
    text += f"; {gpus} GPU" if gpus else ""
    text += f"; weights {', '.join(weights)}. Seconds and memory are those of the whole process."
    left_out = {(row["data"], row["seed"]): row["skipped"] for row in rows if row.get("skipped")}
    for (data, seed), count in left_out.items():
        text += f" The guide leaves out {count} photos of {data} (split {seed}), which tf.io does not decode."
    return text


def claims(by_way: dict[tuple[str, str], dict[int, Row]]) -> list[str]:
    """What kerastk claims of itself, each with `holds`, `FAILS` or `not decided` in front."""

    def of(data: str, start: str) -> dict[int, Row]:
        return next((rows for (name, way), rows in by_way.items() if name == data and way.startswith(start)), {})

    flowers, caltech = of(FLOWERS, "kerastk"), of(CALTECH, "kerastk")
    found = [
        accuracy_claim(flowers),
        time_claim(flowers),
        paired_claim(CALTECH, "kerastk", caltech, "the probe", of(CALTECH, "probe")),
    ]
    for data in (FLOWERS, CALTECH):
        solved, guide = of(data, "solved"), of(data, "guide, then")
        found.append(paired_claim(data, "the solved probe", solved, "the guide", guide))
        found.append(sooner_claim(data, "the solved probe", solved, guide, SOONER))
    guide = of(FLOWERS, "guide, then")
    return [*found, better_claim(flowers, guide), sooner_claim(FLOWERS, "kerastk", flowers, guide, FASTER)]


def accuracy_claim(runs: dict[int, Row]) -> str:
    claim = f"{FLOWERS}: mean test accuracy of kerastk at least {FLOWERS_ACCURACY}"
    if len(runs) < FLOWERS_SEEDS:
        return judged(claim, None, f"{len(runs)} of {FLOWERS_SEEDS} splits measured")
    mean = statistics.mean(row["accuracy"] for row in runs.values())
    return judged(claim, mean >= FLOWERS_ACCURACY, f"{mean:.4f} over {len(runs)} splits")


def time_claim(runs: dict[int, Row]) -> str:
    claim = f"{FLOWERS}: each kerastk run in at most {LONGEST_SECONDS // 60} minutes"
    if not runs:
        return judged(claim, None)
    longest = max(row["seconds"] for row in runs.values())
    return judged(claim, longest <= LONGEST_SECONDS, f"the longest took {longest / 60:.1f}")


def paired_claim(data: str, name: str, runs: dict[int, Row], other: str, others: dict[int, Row]) -> str:
    """The standard error is that of the paired difference over all test photos of all splits that both were asked."""
    claim = f"{data}: {name} not below {other} by more than a standard error of the difference"
    seeds = sorted(runs.keys() & others.keys())
    pairs = [pair for seed in seeds for pair in zip(runs[seed]["hits"], others[seed]["hits"], strict=True)]
    pairs = [pair for pair in pairs if "-" not in pair]
    if len(pairs) < 2:
        return judged(claim, None, "not both are measured")
    differences = [int(ours) - int(theirs) for ours, theirs in pairs]
    mean, error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    return judged(claim, mean >= -error, f"{mean:+.4f}, standard error {error:.4f}, {len(seeds)} splits")


def sooner_claim(data: str, name: str, runs: dict[int, Row], others: dict[int, Row], times: float) -> str:
    claim = f"{data}: {name} is there at least {times:g} times sooner than the guide"
    seeds = runs.keys() & others.keys()
    if not seeds:
        return judged(claim, None, "not both are measured")
    ratio = statistics.median(others[seed]["seconds"] / runs[seed]["seconds"] for seed in seeds)
    return judged(claim, ratio >= times, f"{ratio:.1f} times, median of {len(seeds)} splits")


def better_claim(runs: dict[int, Row], others: dict[int, Row]) -> str:
    claim = f"{FLOWERS}: kerastk at least {100 * BETTER:g} points above the guide"
    seeds = runs.keys() & others.keys()
    if not seeds:
        return judged(claim, None, "not both are measured")
    gain = statistics.mean(runs[seed]["accuracy"] - others[seed]["accuracy"] for seed in seeds)
    return judged(claim, gain >= BETTER, f"{100 * gain:+.1f} points, mean of {len(seeds)} splits")


# The command.


def present(data: tuple[Path, ...]) -> list[Path]:
    """The data sets that are there, by default the shared ones; says which are not."""
    wanted = data or tuple(shared_folder() / "data" / f"{name}.zip" for name in (FLOWERS, CALTECH))
    found = [path.resolve() for path in wanted if path.exists()]
    for path in wanted:
        if not path.exists():
            click.echo(f"skipped: no data at {path}", err=True)
    names = [data_name(path) for path in found]
    if len(set(names)) < len(names):
        raise click.ClickException(f"two data sets have one name ({', '.join(names)}); rename one.")
    return found


@click.command(help="kerastk, the Keras transfer-learning guide and a logistic regression on the very same splits.")
@click.option("--data", type=Path, multiple=True, help="Photos; may be repeated.  [default: flowers5 and caltech24]")
@click.option("--weights", type=Path, help="MobileNetV2's weights without its head.  [default: the shared file]")
@click.option("--seeds", default="0,1,2", show_default=True, callback=numbers, help="Split seeds.")
@click.option("--only", default=",".join(WAYS), show_default=True, callback=some_of(WAYS), help="Which ways to run.")
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the table goes.")
@click.option("--work", type=Path, default=HERE.parent / "build" / "finetune-benchmark", help="Intermediate files.")
@click.option("--report-only", is_flag=True, help="Write the table of what is measured; measure nothing.")
@click.option("--quick", is_flag=True, hidden=True, help="An epoch a stage, to try the benchmark; writes no results.")
@click.option("--worker", type=Path, hidden=True, help="Be the process of one way.")
def main(
    data: tuple[Path, ...],
    weights: Path | None,
    seeds: list[int],
    only: list[str],
    results: Path,
    work: Path,
    report_only: bool,
    quick: bool,
    worker: Path | None,
) -> None:
    if worker is not None:
        run_worker(worker)
        return
    # So that a terminated benchmark takes the process it waits for with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ledger = Ledger((work / "quick" if quick else work).resolve() / "measurements.jsonl")
    failures = 0
    if not report_only:
        weights = weights or shared_folder() / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5"
        if not weights.is_file():
            raise click.ClickException(f"no weights at {weights}; name a file with --weights.")
        wanted = parts(present(data), seeds, only, weights=weights.resolve(), quick=quick, work=ledger.path.parent)
        failures = measure_missing(wanted, ledger, done=done, shown=shown)
    rows = [row for row in ledger.rows() if row["quick"] == quick]
    trial = "--quick" if quick else None
    finish(rows, ledger, results, section="finetune", report=report, failures=failures, trial=trial)


if __name__ == "__main__":
    main()
