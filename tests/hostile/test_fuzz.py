"""Every reader on made-up and on spoiled input: whatever it is, the only errors are kerastk's own.

Each test runs with 20 examples, always the same, and in the slow run with 10,000.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import tomllib
import zipfile

import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kerastk.datasets.archive import open_archive
from kerastk.datasets.images import decode, header, whole
from kerastk.datasets.source import open_source
from kerastk.errors import KerastkError, PhotoError
from kerastk.evaluation import comparison, report
from kerastk.evaluation.listing import runs as listed
from kerastk.evaluation.neighbours import Neighbours
from kerastk.networks import saved
from kerastk.recipe import Finetune, construct, dump, load, parse
from kerastk.run import Run
from kerastk.tasks.photo_model import labels_of
from kerastk.training.checkpoint import Checkpoints
from tests.hostile.test_archives import header as tar_header

COUNTS = pytest.mark.parametrize("examples", [20, pytest.param(10_000, marks=pytest.mark.slow)])


def fuzz(examples, strategy, function):
    """Call the function with so many examples; it asserts that nothing but a KerastkError is raised."""
    chosen = settings(
        max_examples=examples, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def only_our_errors(example):
        with contextlib.suppress(KerastkError):
            function(example)

    chosen(given(strategy)(only_our_errors))()


# What files are made of.

NUMBERS = st.sampled_from([0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["", ".", "..", "../x", "/etc/passwd", "//etc/passwd", "a\0b", "a\nb", "=1+1", "C:\\x", "x" * 300, "\ufeff", "é"]
)
PLAIN = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS
    | st.sampled_from([-1, 0, 1, 8, 32, 4096, 10**9, 10**400, "cat", "crop", "dense", "finetune", "mobilenet_0.25"])
)  # fmt: skip
VALUES = st.recursive(PLAIN, lambda some: st.lists(some, max_size=4) | st.dictionaries(TEXTS, some, max_size=4))


@st.composite
def spoiled(draw, wholes):
    """One of the whole files, with a few bytes changed, cut out, put in twice, or taken from another one."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        match draw(st.integers(0, 5)):
            case 0:
                data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                other = draw(st.sampled_from(wholes))
                begin = draw(st.integers(0, len(other)))
                data[place:place] = other[begin : begin + draw(st.integers(0, 600))]
            case 4:
                code = draw(st.sampled_from(["<H", ">H", "<L", ">L", "<Q", ">Q"]))
                size = struct.calcsize(code)
                data[place : place + size] = struct.pack(code, draw(NUMBERS) % 256**size)
            case 5:
                del data[place:]
    return bytes(data)


@st.composite
def changed(draw, whole, values=VALUES):
    """A tree of JSON with some of its values replaced, taken out, or put under another name."""
    tree = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        places = [
            (each, key) for each in _branches(tree) for key in (each if isinstance(each, dict) else range(len(each)))
        ]
        if not places:
            break
        branch, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            branch[key] = draw(values)
        elif isinstance(branch, dict):
            found = branch.pop(key)
            if draw(st.booleans()):
                branch[draw(TEXTS)] = found
        else:
            del branch[key]
    return tree


def _branches(tree):
    if isinstance(tree, dict | list):
        yield tree
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _branches(each)


def as_json(strategy):
    return strategy.map(lambda tree: json.dumps(tree).encode())


# Recipes.

RECIPE = b'task = "finetune"\ndata = "photos"\nepochs = 5\nlearning_rate = 1e-3\nunfreeze = "all"\nstrict = false\n'
FIELDS = st.sampled_from([*Finetune.__dataclass_fields__, "task", "Epochs", "learning-rate", "x"])


@COUNTS
def test_recipes_of_spoiled_bytes(examples, tmp_path):
    def read(data):
        (tmp_path / "x.toml").write_bytes(data)
        kind, values = parse(tmp_path / "x.toml")
        dump(construct(kind, values))

    more = (
        b'split = "70/15/15"\nsplit_seed = 0xff\ncache_size = "20GB"\nd = 2020-01-01T00:00:00Z\n[a.b]\nc = [1, inf]\n'
    )
    fuzz(examples, st.binary(max_size=200) | spoiled([RECIPE, RECIPE + more, more]), read)


@COUNTS
def test_recipes_of_made_up_tables(examples, tmp_path):
    # As TOML that is right, so that it gets as far as the constructor, and comes back the same where it is good.
    def read(table):
        try:
            text = tomli_w.dumps({"task": "finetune", **table})
            tomllib.loads(text)
        except (TypeError, ValueError, AttributeError):
            return
        (tmp_path / "x.toml").write_text(text, encoding="utf-8")
        recipe = load(tmp_path / "x.toml")
        (tmp_path / "y.toml").write_text(dump(recipe), encoding="utf-8")
        assert load(tmp_path / "y.toml") == recipe

    fuzz(examples, st.dictionaries(FIELDS, VALUES, max_size=4), read)


@COUNTS
def test_recipes_from_python(examples):
    fuzz(examples, st.dictionaries(FIELDS, VALUES, max_size=4), lambda table: dump(construct(Finetune, table)))


# Tables.

CSV = [
    b"path,label,split\na.jpg,cat,train\nb.jpg,dog,val\n",
    '\ufeff"path","label"\r\n"a,b.jpg","say ""miau"""\r\nc.jpg,dog\r\n'.encode(),
    b"path,label\ncaf\xe9.jpg,x\n",
]


@COUNTS
def test_csv_tables(examples, tmp_path):
    def read(data):
        (tmp_path / "x.csv").write_bytes(data)
        source = open_source(tmp_path / "x.csv")
        for file in source.files:
            with contextlib.suppress(PhotoError):
                source.read(file.path)

    rows = st.lists(st.lists(TEXTS | st.sampled_from(["path", "label", "split", "a.jpg"]), max_size=4), max_size=4)
    lines = rows.map(lambda some: "path,label\n" + "\n".join(",".join(cells) for cells in some))
    fuzz(examples, spoiled(CSV) | lines.map(str.encode) | st.binary(max_size=100), read)


@functools.cache
def parquets():
    tables = [
        {"path": ["a.jpg", "b.jpg"], "label": ["x", "y"]},
        {"path": ["a.jpg", "b.jpg"] * 50, "label": [1, 2] * 50, "split": ["train", None] * 50},
        {"path": [b"a"], "label": [["x"]], "n": [0.5]},
    ]
    found = []
    for table in tables:
        for compression in ("snappy", "none"):
            file = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.table(table), file, compression=compression)
            found.append(file.getvalue())
    return found


@COUNTS
def test_parquet_tables(examples, tmp_path):
    def read(data):
        (tmp_path / "x.parquet").write_bytes(data)
        open_source(tmp_path / "x.parquet")

    fuzz(examples, spoiled(parquets()), read)


# Archives.


@functools.cache
def zips():
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("cat/1.jpg", b"one" * 50)
            archive.writestr("dög/2.jpg", b"two")
            archive.writestr("dog/", b"")
        found.append(file.getvalue())
    return found


@functools.cache
def tars():
    found = []
    for mode, form in (("w", tarfile.PAX_FORMAT), ("w", tarfile.GNU_FORMAT), ("w:gz", tarfile.GNU_FORMAT),
                       ("w:bz2", tarfile.PAX_FORMAT), ("w:xz", tarfile.USTAR_FORMAT)):  # fmt: skip
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
            for name in ("cat/1.jpg", "dög/2.jpg", f"dog/{'x' * 90}.jpg"):
                member = tarfile.TarInfo(name)
                member.size = 3
                archive.addfile(member, io.BytesIO(b"abc"))
        found.append(file.getvalue())
    return found


def read_archive(path, data):
    path.write_bytes(data)
    names, _, read = open_archive(path)
    for name in names:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        with contextlib.suppress(PhotoError):
            read(name)


@COUNTS
def test_zips(examples, tmp_path):
    fuzz(examples, spoiled(zips()), lambda data: read_archive(tmp_path / "x.zip", data))


@COUNTS
def test_tars(examples, tmp_path):
    fuzz(examples, spoiled([*tars(), *zips()]), lambda data: read_archive(tmp_path / "x.tar", data))


@st.composite
def made_tars(draw):
    """A tar whose headers have right checksums, whatever else they say."""
    blocks = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 1500))
        claimed = draw(st.sampled_from([size, size, size, 0, -512, -size, 2**20, 2**33, 2**62, 2**80]))
        number = bytes([0o377 if claimed < 0 else 0o200]) + (claimed % 256**11).to_bytes(11, "big")
        number = draw(st.sampled_from([number, number, b"%011o\0" % max(0, claimed % 8**11), b"  \0 x7779\0\0\0"]))
        kind = draw(
            st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"N"])
        )
        name = draw(st.sampled_from(["cat/1.jpg", "dog/2.jpg", "../x.jpg", "//x/y.jpg", "cat", "./a", "x" * 90]))
        pairs = st.sampled_from(["path", "size", "linkpath", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major",
                                 "GNU.sparse.realsize", "GNU.sparse.name", "hdrcharset", "mtime"])  # fmt: skip
        records = b""
        for key in draw(st.lists(pairs, max_size=3)):
            body = f" {key}={draw(TEXTS | st.integers(-600, 2**70).map(str))}\n".encode()
            records += str(len(body) + len(str(len(body) + 2))).encode() + body
        content = draw(st.sampled_from([bytes(size), records, draw(st.binary(max_size=600))]))
        length = b"%011o\0" % len(content) if draw(st.booleans()) else number
        block = bytearray(tar_header(name, kind=kind, number=length))
        if draw(st.booleans()):
            block[257:512] = draw(st.binary(min_size=255, max_size=255))
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        blocks.append(bytes(block) + content + bytes(-len(content) % 512))
    return b"".join(blocks) + bytes(draw(st.sampled_from([0, 512, 1024])))


@COUNTS
def test_tars_of_made_up_headers(examples, tmp_path):
    fuzz(examples, made_tars(), lambda data: read_archive(tmp_path / "x.tar", data))


@COUNTS
def test_compressed_tars_of_made_up_headers(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "cache"))
    # Flushing ten thousand of them to the disk would take the night.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    beside = {tmp_path / "cache", tmp_path / "x.tgz"}

    def read(data):
        try:
            read_archive(tmp_path / "x.tgz", gzip.compress(data, 1))
        finally:
            assert set(tmp_path.iterdir()) <= beside

    fuzz(examples, made_tars(), read)


# Photos.


@functools.cache
def photos():
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 18, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for form, mode, options in (
        ("JPEG", "RGB", {"exif": exif}), ("JPEG", "CMYK", {"progressive": True}), ("JPEG", "L", {}),
        ("PNG", "RGB", {"exif": exif}), ("PNG", "P", {"transparency": 3}), ("PNG", "RGBA", {}), ("PNG", "I;16", {}),
        ("PNG", "1", {}), ("WEBP", "RGB", {"lossless": True}), ("WEBP", "RGBA", {}), ("GIF", "P", {}),
        ("BMP", "RGB", {}), ("BMP", "1", {}), ("TIFF", "RGB", {}), ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {}), ("TIFF", "1", {"compression": "group4"}), ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    ):  # fmt: skip
        file = io.BytesIO()
        (pixels.convert("L").convert(mode) if mode in ("I;16", "F") else pixels.convert(mode)).save(
            file, form, **options
        )
        found.append(file.getvalue())
    return found


@COUNTS
@pytest.mark.filterwarnings("ignore")
def test_photos(examples):
    def read(data):
        seen = 0
        for way in (
            lambda: header(data),
            lambda: decode(data, 8),
            lambda: decode(data, 8, resize="pad"),
            lambda: decode(data, 8, box=(0.1, 0.2, 0.9, 0.7)),
            lambda: whole(data),
        ):
            with contextlib.suppress(PhotoError):
                found = way()
                seen += 1
                assert not isinstance(found, np.ndarray) or found.dtype == np.uint8
        return seen

    fuzz(examples, spoiled(photos()) | st.binary(max_size=100), read)


# Runs.

LABELS = {
    "format": 1, "classes": ["cat", "dog"], "task": "finetune", "base": "mobilenet_0.25", "head": "dense",
    "scores": "probabilities", "image_size": 32, "resize": "crop", "colour": "RGB", "dtype": "uint8",
}  # fmt: skip
RUN = {
    "environment.json": {"format": 1, "versions": {"keras": "3.15.1"}, "device": "cpu", "given": {"epochs": 5}},
    "labels.json": LABELS,
    "data.json": {
        "format": 1, "classes": ["cat", "dog"], "split": "70/15/15", "set_aside": [], "notes": [],
        "files": [{"path": "cat/1.jpg", "sha256": "ab" * 32, "label": "cat", "split": "train"}],
    },
    "metrics.json": {"validation": {"accuracy": 0.9, "interval": [0.8, 0.95], "photos": 100}},
}  # fmt: skip


@COUNTS
@pytest.mark.parametrize("name", RUN)
def test_json_of_runs(name, examples, tmp_path):
    run = Run.create(tmp_path, "run")
    for each, content in RUN.items():
        (run.path / each).write_text(json.dumps(content))

    def read(data):
        (run.path / name).write_bytes(data)
        for way in (
            lambda opened: opened.environment,
            lambda opened: opened.labels,
            lambda opened: opened.data,
            lambda opened: opened.metrics,
            labels_of,
        ):
            with contextlib.suppress(KerastkError):
                way(Run.open(run.path))

    good = json.dumps(RUN[name]).encode()
    fuzz(examples, as_json(changed(RUN[name])) | spoiled([good]) | as_json(VALUES), read)


REPORTED = ("environment.json", "labels.json", "data.json", "metrics.json", "mistakes.json")


@COUNTS
@pytest.mark.parametrize("name", REPORTED)
def test_reports_lists_and_comparisons(name, examples, small_run, tmp_path):
    folders = [tmp_path / "run", tmp_path / "other"]
    for folder in folders:
        shutil.copytree(small_run.path, folder, ignore=shutil.ignore_patterns("events", "model.keras", "report.html"))
    good = json.loads((folders[0] / name).read_text())
    for each in good.get("photos", ())[1:]:
        each.pop("picture", None)

    def read(data):
        (folders[0] / name).write_bytes(data)
        assert len(listed(tmp_path)) == 2
        for way in (lambda run: report.page(run), lambda run: comparison.page([run, Run(folders[1])])):
            with contextlib.suppress(KerastkError):
                assert "<script" not in way(Run.open(folders[0]))

    fuzz(examples, as_json(changed(good)) | spoiled([json.dumps(good).encode()]), read)


TAGGED = ("environment.json", "labels.json", "data.json", "metrics.json", "vocabulary.json", "predictions.conll")


@COUNTS
@pytest.mark.parametrize("name", TAGGED)
def test_reports_lists_and_comparisons_of_taggers(name, examples, tagger_run, tmp_path):
    folders = [tmp_path / "run", tmp_path / "other"]
    for folder in folders:
        shutil.copytree(tagger_run.path, folder, ignore=shutil.ignore_patterns("events", "model.keras", "report.html"))
    good = (folders[0] / name).read_bytes()

    def read(data):
        (folders[0] / name).write_bytes(data)
        assert len(listed(tmp_path)) == 2
        for way in (lambda run: report.page(run), lambda run: comparison.page([run, Run(folders[1])])):
            with contextlib.suppress(KerastkError):
                assert "<script" not in way(Run.open(folders[0]))

    damaged = spoiled([good])
    fuzz(examples, damaged if name.endswith(".conll") else as_json(changed(json.loads(good))) | damaged, read)


@COUNTS
def test_logs_and_recipes_of_runs(examples, tmp_path):
    run = Run.create(tmp_path, "run")
    run.write_environment({})

    def read(data):
        run.log_csv.write_bytes(data)
        run.recipe_toml.write_bytes(data)
        for way in (lambda opened: opened.log, lambda opened: opened.recipe):
            with contextlib.suppress(KerastkError):
                way(Run.open(run.path))

    fuzz(examples, spoiled([b"epoch,phase,loss\n1,probe,0.5\n2,finetune,0.4\n", RECIPE]), read)


@functools.cache
def arrays():
    found = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        known = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
        save(file, features=known, truth=np.arange(6) % 2, count=np.int64(2))
        found.append(file.getvalue())
    return found


@COUNTS
def test_neighbours(examples, tmp_path):
    def read(data):
        (tmp_path / "x.npz").write_bytes(data)
        found = Neighbours.load(tmp_path / "x.npz")
        assert found.probabilities(np.ones((2, found.features.shape[1]))).shape == (2, found.classes)

    fuzz(examples, spoiled(arrays()), read)


@COUNTS
def test_checkpoints(examples, tmp_path):
    # With the checksums made right again, as somebody would who means it.
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save({"epoch": 3, "weights": [np.ones(4, np.float32), np.zeros((2, 3))], "rows": [{"loss": 0.5}]})
    (folder,) = checkpoints.folder.iterdir()
    state, packed = (folder / "state.json").read_bytes(), (folder / "arrays.npz").read_bytes()

    def read(pair):
        sums = {}
        for name, data in zip(("state.json", "arrays.npz"), pair, strict=True):
            (folder / name).write_bytes(data)
            sums[name] = hashlib.sha256(data).hexdigest()
        (folder / "sha256.json").write_text(json.dumps(sums))
        checkpoints.load()

    trees = as_json(changed(json.loads(state))) | spoiled([state]) | st.just(state)
    fuzz(examples, st.tuples(trees, spoiled([packed]) | st.just(packed)), read)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The members of a small saved model."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    photo = keras.Input((8, 8, 3), dtype="uint8", name="photo")
    values = keras.layers.Rescaling(1 / 255)(photo)
    values = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(values))
    values = keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(values))
    keras.Model(photo, keras.layers.Softmax()(values)).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members, config):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, config if name == "config.json" else data)
    return file.getvalue()


@COUNTS
def test_models_of_spoiled_bytes(examples, members, tmp_path, monkeypatch):
    # HDF5's own reader is not asked about spoiled weights.
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: None)

    def read(data):
        (tmp_path / "model.keras").write_bytes(data)
        saved.load(tmp_path / "model.keras")

    fuzz(examples, spoiled([pack(members, members["config.json"])]), read)


@COUNTS
def test_models_of_made_up_configurations(examples, members, tmp_path):
    def read(config):
        (tmp_path / "model.keras").write_bytes(pack(members, config))
        saved.load(tmp_path / "model.keras")

    # No numbers between: layers of gigabytes would be made.
    numbers = st.none() | st.booleans() | st.integers(-2, 70) | st.just(2**62) | st.floats(-2, 70) | TEXTS
    values = st.recursive(numbers, lambda some: st.lists(some, max_size=4) | st.dictionaries(TEXTS, some, max_size=4))
    config = json.loads(members["config.json"])
    fuzz(examples, as_json(changed(config, values)) | spoiled([members["config.json"]]), read)
