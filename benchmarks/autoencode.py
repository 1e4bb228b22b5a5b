"""kerastk's autoencoders beside principal components, PyOD's and the figures of the literature, in one run.

    python benchmarks/autoencode.py --peers PYTHON                       # all of it: hours on 2 cores
    python benchmarks/autoencode.py --only mnist,curves --seeds 0,1,2
    python benchmarks/autoencode.py --epochs 1                           # tries everything, writes no results

Trainings are those of the shipped recipes, each a process that is measured from its start to its end. What is finished
stands in WORK/measurements.jsonl at once, and a benchmark started again with the same --work goes on from there.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from autoencode_report import report
from comparing import Part, Row, finish, measure_missing, numbers, shared_folder, some_of
from measuring import Ledger, Usage, code_hash, machine, measure, versions

import kerastk
from kerastk import recipes
from kerastk.storage import write_atomic

HERE = Path(__file__).resolve().parent
PARTS = ("mnist", "rbm", "curves", "denoising", "artefacts", "vae", "one_class")
CURVES = "kerastk:curves"
UPSAMPLERS = ("transpose", "subpixel", "resize")
# Enlarging is compared on few photos; so many epochs show what it leaves.
ARTEFACT_EPOCHS = 25


@dataclass(frozen=True)
class Way:
    """What is measured: of which part, under which name, on what, and by which recipe with which options.

    `figure` is what counts of it (see `autoencode_ways.FIGURES`); of an error it is what the scorer finds, who opens
    the saved model. `size` is that of a linear code.
    """

    part: str
    data: str
    name: str
    source: str
    recipe: str | None = None
    options: Row = field(default_factory=dict)
    figure: str = "error"
    size: int = 0


@dataclass(frozen=True)
class Setting:
    """What all processes of a benchmark share. `peers` is another Python, `peer_versions` what it has.

    `epochs` are those of a try.
    """

    work: Path
    mnist: str
    photos: str
    peers: str | None
    peer_versions: dict[str, str | None]
    epochs: int | None


def ways(setting: Setting) -> Iterator[Way]:
    """All that can be measured."""
    mnist, photos = setting.mnist, setting.photos
    yield Way("mnist", "mnist", "kerastk", mnist, "mnist_autoencoder")
    yield Way("rbm", "mnist", "rbm", mnist, "mnist_rbm")
    yield Way("mnist", "mnist", "guide", mnist)
    yield Way("mnist", "mnist", "logistic PCA 30", mnist, size=30)
    yield Way("mnist", "mnist", "PCA 30", mnist, size=30)
    yield Way("curves", "curves", "kerastk", CURVES, "curves_autoencoder")
    logistic = {"pretrain": "rbm", "activation": "sigmoid"}
    yield Way("rbm", "curves", "rbm", CURVES, "curves_autoencoder", logistic)
    for name, size in (("logistic PCA", 6), ("PCA", 6), ("PCA", 18)):
        yield Way("curves", "curves", f"{name} {size}", CURVES, size=size)
    yield Way("denoising", "denoising", "kerastk", mnist, "mnist_denoising", figure="gain")
    for upsample in UPSAMPLERS:
        options = {"upsample": upsample, "epochs": ARTEFACT_EPOCHS}
        yield Way("artefacts", "artefacts", upsample, photos, "photo_autoencoder", options, figure="checkerboard")
    yield Way("vae", "vae", "kerastk", mnist, "mnist_vae", figure="elbo")
    for name, digit in itertools.product(("kerastk", "pyod"), range(10)):
        options = {"normal": str(digit)}
        yield Way("one_class", "one_class", f"{name} {digit}", mnist, "mnist_one_class", options, figure="auroc")


# Measuring: the parent. It must stay small: whatever computes is a process of `autoencode_ways` or `autoencode_peers`.


def process(stage: str, job: Path, *, peers: str | None = None) -> tuple[Usage, Row]:
    """Run a stage of a job to its end, one of the peers' in their Python: what it took, and the values that it left."""
    script = "autoencode_peers.py" if peers else "autoencode_ways.py"
    usage = measure(
        [peers or sys.executable, str(HERE / script), stage, str(job)],
        log=job.with_name(f"{stage}.log"),
        environment={"KERASTK_CACHE": str(job.parent.parent / "cache"), "KERAS_BACKEND": "tensorflow"},
    )
    return usage, json.loads(job.with_name(f"{stage}.json").read_text())


def run_way(way: Way, seed: int, setting: Setting) -> list[Row]:
    """The figures of one way: trained or fitted, then scored, each in a process of its own."""
    folder = setting.work / f"{way.data}-{way.name.replace(' ', '-')}-{seed}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    job = folder / "job.json"
    values = {
        "folder": str(folder), "data": way.source, "recipe": way.recipe, "options": options_of(way, setting),
        "seed": seed, "figure": way.figure, "size": way.size, "logistic": way.name.startswith("logistic"),
        "epochs": setting.epochs,
    }  # fmt: skip
    write_atomic(job, json.dumps(values))
    if is_peer(way):
        process("export", job)
        usage, found = process("pyod", job, peers=setting.peers)
        found |= process("judge", job)[1]
    else:
        usage, found = process("linear" if way.size else "train" if way.recipe else "guide", job)
        found |= process("score", job)[1] if way.figure == "error" and not way.size else {}
    return [{**asdict(usage), **found}]


def options_of(way: Way, setting: Setting) -> Row:
    """What a way has other than its recipe; of a try fewer epochs, too."""
    if way.recipe is None or setting.epochs is None:
        return way.options
    machines = {"rbm_epochs": setting.epochs} if "rbm" in (way.name, way.options.get("pretrain")) else {}
    return {**way.options, "epochs": setting.epochs, **machines}


def is_peer(way: Way) -> bool:
    return way.name.startswith("pyod")


def recipe_of(way: Way) -> Row:
    """What the recipe of a way has other than the defaults."""
    if way.recipe is None:
        return {}
    recipe, default = getattr(recipes, way.recipe), kerastk.Autoencode()
    names = {each.name for each in dataclasses.fields(recipe)} - {"data"}
    return {name: getattr(recipe, name) for name in sorted(names) if getattr(recipe, name) != getattr(default, name)}


def parts(wanted: Iterable[Way], seeds: list[int], setting: Setting) -> Iterator[Part]:
    """Every way with every seed; figures count for the same files, recipe and code alone."""
    here = {**machine(), **versions("keras", "tensorflow", "kerastk")}
    code, digests = code_hash(Path(kerastk.__file__).parent), {}
    for seed in seeds:
        for way in wanted:
            # Principal components are the same for all seeds.
            if way.size and seed != seeds[0]:
                continue
            if way.source not in digests:
                digests[way.source] = digest(way.source)
            marks = {
                "digest": digests[way.source], "recipe": recipe_of(way), "options": options_of(way, setting),
                "tried_epochs": setting.epochs, "version": setting.peer_versions["pyod"] if is_peer(way) else code,
            }  # fmt: skip
            python = setting.peer_versions["python"] if is_peer(way) else here["python"]
            run = functools.partial(run_way, way, seed, setting)
            place = {"data": way.data, "seed": seed, "way": way.name}
            yield Part(f"{way.data}, seed {seed}: {way.name}", place, marks, {**here, "way_python": python}, run)


def digest(source: str) -> str:
    """The start of a hash over the content of a file, or of all files in a folder; what kerastk makes by its name."""
    if source == CURVES:
        return source
    path, found = Path(source), hashlib.sha256()
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        found.update(each.name.encode() + b"\0" + hashlib.sha256(each.read_bytes()).digest())
    return found.hexdigest()[:10]


def done(ledger: Ledger, place: Row, marks: Row) -> bool:
    """Whether this is measured: of the same files, the same recipe, and the code or the peer as it is now."""
    rows = [row for row in ledger.rows() if place.items() <= row.items()]
    if any(row["digest"] != marks["digest"] for row in rows):
        raise click.ClickException(
            f"{ledger.path} holds figures of {place['data']} with other files; choose another --work."
        )
    return any(marks.items() <= row.items() for row in rows)


def shown(row: Row) -> str:
    return f"{row['figure']} {row['score']:.3f}, {row['seconds']:.0f} s"


# The command.


def peer_versions(python: str | None) -> dict[str, str | None]:
    """What the peers' Python has; nothing without one."""
    if python is None:
        return {"python": None, "pyod": None}
    try:
        command = [python, str(HERE / "autoencode_peers.py"), "versions"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise click.BadParameter(f"--peers must be a Python; {python!r} does not run: {error}.") from None


def possible(only: list[str], setting: Setting) -> list[Way]:
    """The ways of some parts that can run here; says which cannot, and why."""
    found, reasons = [], {}
    for way in ways(setting):
        if way.part not in only:
            continue
        if way.source != CURVES and not Path(way.source).exists():
            reasons[way.part] = f"no data at {way.source}"
        elif is_peer(way) and setting.peers is None:
            reasons["pyod"] = "name a Python that has it with --peers"
        elif is_peer(way) and setting.peer_versions["pyod"] is None:
            reasons["pyod"] = f"{setting.peers} does not have it"
        else:
            found.append(way)
    for name, reason in reasons.items():
        click.echo(f"skipped: {name}: {reason}", err=True)
    return found


@click.command(help="kerastk's autoencoders, by its shipped recipes, beside linear codes, peers and the literature.")
@click.option("--mnist", type=Path, help="The folder of MNIST's IDX files.  [default: the shared mnist]")
@click.option("--photos", type=Path, help="Photos to see what enlarging leaves.  [default: the shared flowers5]")
@click.option("--peers", help="The Python that has PyOD.")
@click.option("--seeds", default="0", show_default=True, callback=numbers, help="Seeds of weights and order.")
@click.option("--only", default=",".join(PARTS), show_default=True, callback=some_of(PARTS), help="Which parts to run.")
@click.option("--epochs", type=click.IntRange(1), help="Of everything, to try the benchmark; writes no results.")
@click.option("--results", type=Path, default=HERE / "RESULTS.md", help="Where the tables go.")
@click.option("--work", type=Path, default=HERE.parent / "build" / "autoencode-benchmark", help="Intermediate files.")
@click.option("--report-only", is_flag=True, help="Write the tables of what is measured; measure nothing.")
def main(
    mnist: Path | None,
    photos: Path | None,
    peers: str | None,
    seeds: list[int],
    only: list[str],
    epochs: int | None,
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
        mnist, photos = (
            str((given or shared_folder() / "data" / name).resolve())
            for given, name in ((mnist, "mnist"), (photos, "flowers5.zip"))
        )
        setting = Setting(work, mnist, photos, peers, peer_versions(peers), epochs)
        failures = measure_missing(parts(possible(only, setting), seeds, setting), ledger, done=done, shown=shown)
    trial = "--epochs" if epochs else None
    finish(ledger.rows(), ledger, results, section="autoencode", report=report, failures=failures, trial=trial)


if __name__ == "__main__":
    main()
