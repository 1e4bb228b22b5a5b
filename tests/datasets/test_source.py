import io
import os
import sys
import tarfile
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerastk.datasets import archive as archives
from kerastk.datasets import files
from kerastk.datasets.images import whole
from kerastk.datasets.source import SPLIT_NAMES, natural_key, open_source, run_name
from kerastk.errors import DataError, PhotoError

SIMPLE = {"cat/1.jpg": b"c1", "cat/2.jpg": b"c2", "dog/1.jpg": b"d1"}
GIVEN = {"train/cat/1.jpg": b"1", "train/dog/1.jpg": b"2", "val/cat/2.jpg": b"3", "test/dog/2.jpg": b"4"}

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="file names must be UTF-8 here")


def labels(opened):
    return {file.path: file.label for file in opened.files}


def splits(opened):
    return {file.path: file.split for file in opened.files}


def kinds(opened):
    return Counter(finding.kind for finding in opened.findings)


def paths_of(opened, kind):
    return {path for finding in opened.findings if finding.kind == kind for path in finding.paths}


def contents(opened):
    return {file.path: opened.read(file.path) for file in opened.files}


def write_zip(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path, files, mode="w", extra=()):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return path


# Folders.


def test_natural_order():
    assert sorted(["10", "2", "1"], key=natural_key) == ["1", "2", "10"]
    assert sorted(["b", "A", "c10", "c9", "C1"], key=natural_key) == ["A", "b", "C1", "c9", "c10"]
    assert sorted(["cats", "cat2", "cat 1", "cat", "Cat", ""], key=natural_key) == [
        "",
        "Cat",
        "cat",
        "cat2",
        "cat 1",
        "cats",
    ]


def test_a_folder_of_class_folders(tree):
    opened = open_source(tree(SIMPLE | {"cat/deep/er/3.png": b"c3"}))
    assert opened.name == "photos"
    assert opened.classes == ["cat", "dog"]
    assert labels(opened) == dict.fromkeys(["cat/1.jpg", "cat/2.jpg", "cat/deep/er/3.png"], "cat") | {
        "dog/1.jpg": "dog"
    }
    assert set(splits(opened).values()) == {None}
    assert contents(opened) == SIMPLE | {"cat/deep/er/3.png": b"c3"}
    assert opened.findings == []


def test_classes_are_in_natural_order(tree):
    assert open_source(tree({f"{n}/x.jpg": b"" for n in (10, 2, 1, 0)})).classes == ["0", "1", "2", "10"]


def test_a_path_may_be_text_or_relative(tree, monkeypatch):
    root = tree(SIMPLE)
    monkeypatch.chdir(root)
    for data in (str(root), f"{root}/", "."):
        assert open_source(data).name == "photos"
        assert contents(open_source(data)) == SIMPLE


def test_given_splits(tree):
    opened = open_source(tree(GIVEN))
    assert opened.classes == ["cat", "dog"]
    assert splits(opened) == {path: path.split("/")[0] for path in GIVEN}
    assert labels(opened) == {path: path.split("/")[1] for path in GIVEN}


@pytest.mark.parametrize("names", [["train"], ["train", "test"], ["train", "val"], ["test"]])
def test_any_subset_of_splits(tree, names):
    opened = open_source(tree({path: data for path, data in GIVEN.items() if path.split("/")[0] in names}))
    assert set(splits(opened).values()) == set(names)
    assert set(labels(opened).values()) <= {"cat", "dog"}


@pytest.mark.parametrize("name", [*SPLIT_NAMES, "Train", "VALID"])
def test_other_names_of_splits(tree, name):
    opened = open_source(tree({f"{name}/cat/1.jpg": b"", f"{name}/dog/1.jpg": b""}))
    assert set(splits(opened).values()) == {SPLIT_NAMES[name.lower()]}
    assert opened.classes == ["cat", "dog"]


def test_classes_may_be_called_like_splits(tree):
    opened = open_source(tree({"test/1.jpg": b"", "train/2.jpg": b""}))
    assert opened.classes == ["test", "train"]
    assert set(splits(opened).values()) == {None}


@pytest.mark.parametrize("files", [SIMPLE, GIVEN])
@pytest.mark.parametrize("wrapping", ["data", "data/release-2"])
def test_a_folder_around_everything_is_no_class(tree, files, wrapping):
    wrapped = {f"{wrapping}/{path}": data for path, data in files.items()} | {f"{wrapping}/README.txt": b"about"}
    opened, plain = open_source(tree(wrapped, "around")), open_source(tree(files))
    assert opened.classes == plain.classes == ["cat", "dog"]
    assert labels(opened) == {f"{wrapping}/{path}": label for path, label in labels(plain).items()}
    assert splits(opened) == {f"{wrapping}/{path}": split for path, split in splits(plain).items()}


def test_one_class_is_not_taken_for_a_folder_around_everything(tree):
    assert open_source(tree({"cat/1.jpg": b"", "cat/2.jpg": b""})).classes == ["cat"]


@pytest.mark.parametrize("files", [SIMPLE, GIVEN])
def test_texts_beside_the_photos_change_no_class_and_no_split(tree, files):
    wrapped = {f"data/{path}": data for path, data in files.items()}
    beside = {"docs/readme.txt": b"", "docs/more/list.csv": b"", "labels.json": b""}
    opened = open_source(tree(wrapped | beside, "around"))
    assert opened.classes == ["cat", "dog"]
    assert set(labels(opened)) == set(wrapped)


def test_a_folder_of_photos_beside_given_splits_is_neither_class_nor_split(tree):
    with pytest.raises(DataError, match=r"'val' looks like a split with class folders, 'new' like a class"):
        open_source(tree(GIVEN | {"new/1.jpg": b"x"}))


def test_files_without_an_ending_and_strays_change_no_layout(tree):
    wrapped = {f"repo-main/{name}": data for name, data in SIMPLE.items()}
    opened = open_source(tree(wrapped | {"repo-main/LICENSE": b"", "repo-main/README": b""}))
    assert opened.classes == ["cat", "dog"]
    assert paths_of(opened, "no-class") == {"repo-main/LICENSE", "repo-main/README"}


def test_what_lies_outside_the_class_folders_is_listed(tree):
    opened = open_source(tree(SIMPLE | {"labels.txt": b"", "top.jpg": b"", "top.heic": b""}))
    assert paths_of(opened, "other-file") == {"labels.txt", "top.heic"}
    assert paths_of(opened, "no-class") == {"top.jpg"}


def test_a_path_in_two_splits_is_refused(tmp_path):
    rows = [("a.jpg", "rose", "train"), ("b.jpg", "tulip", "train"), ("a.jpg", "rose", "test")]
    with pytest.raises(DataError, match=r"row 3: 'a.jpg' stands in train and in test"):
        open_source(rows)


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", {"x.jpg": b"x"}).read_bytes()
    packed = pack("tar", tmp_path, SIMPLE | {"zz/last.zip": inner})
    assert {"cat", "dog"} <= set(open_source(packed).classes)


def test_texts_beside_given_splits(tree):
    opened = open_source(tree(GIVEN | {"docs/list.txt": b"", "labels.csv": b""}))
    assert opened.classes == ["cat", "dog"]
    assert set(splits(opened).values()) == {"train", "val", "test"}


def test_photos_outside_of_classes_are_named(tree):
    opened = open_source(tree(SIMPLE | {"lost.jpg": b"", "README.md": b"", "noend": b""}))
    assert paths_of(opened, "no-class") == {"lost.jpg", "noend"}
    assert set(labels(opened)) == set(SIMPLE)
    given = open_source(tree(GIVEN | {"train/lost.jpg": b""}, "given"))
    assert paths_of(given, "no-class") == {"train/lost.jpg"}


def test_hidden_files_are_left_out_by_name(tree):
    hidden = {"cat/.x.jpg": b"", "cat/._1.jpg": b"", "cat/Thumbs.db": b"", ".ipynb_checkpoints/a.jpg": b"",
              "__MACOSX/cat/1.jpg": b"", "dog/desktop.ini": b"", "cat/.ipynb_checkpoints/1.jpg": b""}  # fmt: skip
    opened = open_source(tree(SIMPLE | hidden))
    assert set(labels(opened)) == set(SIMPLE)
    assert opened.classes == ["cat", "dog"]
    assert paths_of(opened, "hidden") == {
        "cat/.x.jpg", "cat/._1.jpg", "cat/Thumbs.db", ".ipynb_checkpoints", "__MACOSX", "dog/desktop.ini",
        "cat/.ipynb_checkpoints",
    }  # fmt: skip
    zipped = open_source(write_zip(tree({}) / "x.zip", SIMPLE | hidden))
    assert set(labels(zipped)) == set(SIMPLE)
    assert paths_of(zipped, "hidden") == set(hidden)


def test_empty_folders_are_named(tree):
    root = tree(SIMPLE)
    (root / "fish" / "small").mkdir(parents=True)
    assert paths_of(open_source(root), "empty-folder") == {"fish/small"}


def test_links_are_followed_once(tree, within):
    root = tree(SIMPLE)
    (root / "fox").mkdir()
    elsewhere = tree({"1.jpg": b"f1"}, "elsewhere")
    (root / "fox" / "far").symlink_to(elsewhere)
    (root / "fox" / "one.jpg").symlink_to(elsewhere / "1.jpg")
    (root / "cat" / "loop").symlink_to(root)
    (root / "dog" / "self").symlink_to("self")
    (root / "dog" / "broken.jpg").symlink_to("nowhere.jpg")
    opened = within(20, open_source, root)
    assert contents(opened) == SIMPLE | {"fox/far/1.jpg": b"f1", "fox/one.jpg": b"f1"}
    assert paths_of(opened, "link-loop") == {"cat/loop"}
    assert paths_of(opened, "unreadable") == {"dog/self", "dog/broken.jpg"}


@pytest.mark.parametrize("target", ["..", "/"])
def test_a_link_to_a_folder_above_the_data_is_a_loop(tree, within, target):
    root = tree(SIMPLE)
    tree({"secret/1.jpg": b""}, "neighbour")
    (root / "cat" / "up").symlink_to(root / target)
    opened = within(20, open_source, root)
    assert set(labels(opened)) == set(SIMPLE)
    assert paths_of(opened, "link-loop") == {"cat/up"}


@linux_only
def test_odd_names(tree):
    odd = [b"line\nbreak.jpg", b"caf\xe9.jpg", b"\"quoted\" 'name'.jpg", b"tab\t.jpg", b"-rf.jpg", b"a,b;c.jpg",
           b"%s.jpg", "\N{SNOWMAN}.jpg".encode(), b"x" * 251 + b".jpg"]  # fmt: skip
    root = tree(SIMPLE)
    for name in odd:
        with open(os.path.join(os.fsencode(root), b"cat", name), "wb") as file:
            file.write(name)
    opened = open_source(root)
    found = {os.fsencode(path).removeprefix(b"cat/"): data for path, data in contents(opened).items()}
    assert {name: name for name in odd}.items() <= found.items()
    assert opened.findings == []


def test_folders_nested_deeper_than_python(tree):
    root = tree(SIMPLE)
    deep = [os.path.join(root, "cat", *["d"] * depth) for depth in range(1, 1050)]
    try:
        for folder in deep:
            os.mkdir(folder)
        assert set(labels(open_source(root))) == set(SIMPLE)
    finally:
        # shutil.rmtree, with which pytest cleans up, cannot go so deep.
        for folder in reversed(deep):
            os.rmdir(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hold_us_up(tree, within):
    root = tree(SIMPLE)
    os.mkfifo(root / "cat" / "pipe.jpg")
    os.mkfifo(root.parent / "pipe.zip")
    opened = within(20, open_source, root)
    assert paths_of(opened, "not-a-file") == {"cat/pipe.jpg"}
    table = within(20, open_source, [(root / "cat" / "pipe.jpg", "cat"), (root / "cat" / "1.jpg", "dog")])
    with pytest.raises(PhotoError, match="regular") as caught:
        within(20, table.read, str(root / "cat" / "pipe.jpg"))
    assert caught.value.kind == "unreadable"
    with pytest.raises(DataError, match="neither a folder nor a file"):
        within(20, open_source, root.parent / "pipe.zip")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tree):
    root = tree(SIMPLE | {"fox/1.jpg": b"", "fox/2.jpg": b""})
    (root / "cat" / "1.jpg").chmod(0)
    (root / "fox").chmod(0)
    try:
        opened = open_source(root)
        assert paths_of(opened, "unreadable") == {"fox"}
        with pytest.raises(PhotoError, match="ermission"):
            opened.read("cat/1.jpg")
    finally:
        (root / "fox").chmod(0o700)


def test_a_file_that_is_gone_or_too_large(tree, monkeypatch):
    root = tree(SIMPLE)
    opened = open_source(root)
    monkeypatch.setattr(files, "MAX_BYTES", 1)
    with pytest.raises(PhotoError, match="limit") as caught:
        opened.read("cat/1.jpg")
    assert caught.value.kind == "oversized"
    (root / "cat" / "2.jpg").unlink()
    with pytest.raises(PhotoError, match="No such file") as caught:
        opened.read("cat/2.jpg")
    assert caught.value.kind == "unreadable"


# Refusals.


@pytest.mark.parametrize("name", ["missing", "missing.zip", "missing.csv", "a\0b", "x" * 5000])
def test_missing_data(tmp_path, name):
    with pytest.raises(DataError, match="cannot open the data"):
        open_source(f"{tmp_path}/{name}")


def test_data_of_no_kind(tree):
    root = tree(SIMPLE | {"notes.txt": b"hello"})
    with pytest.raises(DataError, match=r"no data that kerastk reads.*\.zip"):
        open_source(root / "notes.txt")
    with pytest.raises(DataError, match="got int"):
        open_source(3)
    with pytest.raises(DataError, match="got list"):
        open_source([("a.jpg",)])
    with pytest.raises(DataError, match="no rows"):
        open_source([])


def test_folders_without_classes(tree):
    for name, content in {"empty": {}, "flat": {"1.jpg": b"", "2.jpg": b""}, "texts": {"README.md": b""}}.items():
        with pytest.raises(DataError, match=rf"Expected {name}/<class>/"):
            open_source(tree(content, name))


# Archives.


def pack(kind, folder, files):
    path = folder / f"pack.{kind}"
    if kind == "zip":
        return write_zip(path, files, compression=zipfile.ZIP_DEFLATED)
    return write_tar(
        path, files, {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[kind]
    )


@pytest.mark.parametrize("files", [SIMPLE, GIVEN])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive_is_read_like_its_folder(tree, tmp_path, kind, files):
    folder, opened = open_source(tree(files)), open_source(pack(kind, tmp_path, files))
    assert opened.name == "pack"
    assert opened.files == folder.files
    assert opened.classes == folder.classes
    assert opened.findings == []
    assert contents(opened) == files


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_with_one_folder_around_everything(tmp_path, kind):
    wrapped = {f"./data/{path}": data for path, data in SIMPLE.items()} | {"./data/README.txt": b""}
    opened = open_source(pack(kind, tmp_path, wrapped))
    assert opened.classes == ["cat", "dog"]
    assert sorted(contents(opened).values()) == [b"c1", b"c2", b"d1"]


def test_an_archive_is_read_in_place_and_a_compressed_tar_unpacked_once(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("KERASTK_CACHE", str(cache))
    for kind in ("zip", "tar"):
        contents(open_source(pack(kind, tmp_path, SIMPLE)))
    assert not cache.exists()
    packed = pack("tar.gz", tmp_path, SIMPLE)
    contents(open_source(packed))
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert sum(path.suffix == ".jpg" for path in before) == 3
    renamed = packed.rename(tmp_path / "other-name.tgz")
    assert contents(open_source(renamed)) == SIMPLE
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


OUTSIDE = {"../evil.jpg": b"e", "cat/../../evil.jpg": b"e", "/abs/evil.jpg": b"e", "C:/evil.jpg": b"e",
           "cat\\..\\..\\evil.jpg": b"e"}  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_of_an_archive(tmp_path, kind):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    packed = pack(kind, inside, SIMPLE | OUTSIDE)
    for _ in range(2):
        opened = open_source(packed)
        assert contents(opened) == SIMPLE
        assert paths_of(opened, "unsafe-path") == set(OUTSIDE)
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_devices_in_a_tar_are_left_out_by_name(tree, tmp_path, mode):
    secret = tree({"secret.jpg": b"secret"}, "secret") / "secret.jpg"
    extra = []
    for name, kind, target in (
        ("cat/soft.jpg", tarfile.SYMTYPE, str(secret)), ("cat/hard.jpg", tarfile.LNKTYPE, "cat/1.jpg"),
        ("cat/up", tarfile.SYMTYPE, "../.."), ("cat/null.jpg", tarfile.CHRTYPE, ""),
        ("cat/pipe.jpg", tarfile.FIFOTYPE, ""),
    ):  # fmt: skip
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        extra.append(member)
    packed = write_tar(tmp_path / "x.tar", SIMPLE, mode, extra)
    for _ in range(2):
        opened = open_source(packed)
        assert contents(opened) == SIMPLE
        assert paths_of(opened, "not-a-file") == {member.name for member in extra}


def test_a_link_in_a_zip_is_not_followed(tree, tmp_path):
    secret = tree({"secret.jpg": b"secret"}, "secret") / "secret.jpg"
    link = zipfile.ZipInfo("cat/link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    path = write_zip(tmp_path / "x.zip", SIMPLE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(secret))
    assert open_source(path).read("cat/link.jpg") == str(secret).encode()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_in_a_zip_twice_is_one_file(tmp_path):
    path = write_zip(tmp_path / "x.zip", SIMPLE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/1.jpg", b"newer")
    assert contents(open_source(path)) == SIMPLE | {"cat/1.jpg": b"newer"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_member_over_the_byte_limit_is_named(tmp_path, kind, monkeypatch):
    packed = pack(kind, tmp_path, SIMPLE | {"cat/large.jpg": bytes(100)})
    monkeypatch.setattr(archives, "MAX_BYTES", 99)
    for _ in range(2):
        opened = open_source(packed)
        assert contents(opened) == SIMPLE
        assert paths_of(opened, "oversized") == {"cat/large.jpg"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_of_too_many_files_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(DataError, match="more than 2 files"):
        open_source(pack(kind, tmp_path, SIMPLE | {"dog/2.jpg": b""}))


def test_a_compressed_tar_that_unpacks_to_too_much_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1000)
    cache = tmp_path / "cache"
    monkeypatch.setenv("KERASTK_CACHE", str(cache))
    with pytest.raises(DataError, match="unpack it yourself"):
        open_source(pack("tar.gz", tmp_path, {f"cat/{n}.jpg": bytes(300) for n in range(5)}))
    assert not list(cache.rglob("*.jpg"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_damaged_archive_is_refused_or_its_photos_are(tmp_path, kind):
    packed = pack(
        kind, tmp_path, {f"{c}/{n}.jpg": np.random.default_rng(n).bytes(3000) for c in "ab" for n in range(6)}
    )
    data = packed.read_bytes()
    refused = 0
    draw = np.random.default_rng(0)
    damaged = [data[: len(data) * n // 12] for n in range(12)]
    for _ in range(12):
        spoiled = bytearray(data)
        for place in draw.integers(0, len(data), 5):
            spoiled[place] ^= 0xFF
        damaged.append(bytes(spoiled))
    for each in damaged:
        packed.write_bytes(each)
        try:
            opened = open_source(packed)
        except DataError:
            refused += 1
            continue
        for file in opened.files:
            try:
                opened.read(file.path)
            except PhotoError:
                refused += 1
    assert refused >= 6


def test_an_encrypted_zip_names_its_photos(tmp_path):
    path = write_zip(tmp_path / "x.zip", SIMPLE)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(mark)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(mark, place + 4)
    path.write_bytes(bytes(data))
    opened = open_source(path)
    with pytest.raises(PhotoError, match="encrypted"):
        opened.read("cat/1.jpg")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_read_from_many_threads(tmp_path, kind):
    files = {f"{c}/{n}.jpg": bytes([n]) * 5000 for c in "ab" for n in range(100)}
    opened = open_source(pack(kind, tmp_path, files))
    with ThreadPoolExecutor(8) as pool:
        assert dict(zip(files, pool.map(opened.read, files), strict=True)) == files


def test_names_for_runs(tmp_path):
    names = {"photos": "photos", "photos.zip": "photos", "a.tar.gz": "a", "t.csv": "t", "t.parquet": "t",
             "my photos!": "my-photos", "...": "data", "x" * 100: "x" * 60, "v1.2": "v1.2"}  # fmt: skip
    for name, expected in names.items():
        if name != "...":
            assert run_name(tmp_path / name) == expected
    assert run_name(tmp_path / "photos" / "..") == run_name(tmp_path)
    assert run_name(tmp_path / "\n") == "data"


# Tables.


def write_csv(root, text, name="table.csv"):
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_with_relative_and_absolute_paths(tree, tmp_path):
    root = tree(SIMPLE)
    other = tree({"x.jpg": b"far"}, "other") / "x.jpg"
    opened = open_source(write_csv(root, f"path,label\ncat/1.jpg,cat\n{other},dog\n"))
    assert opened.name == "table"
    assert labels(opened) == {"cat/1.jpg": "cat", str(other): "dog"}
    assert contents(opened) == {"cat/1.jpg": b"c1", str(other): b"far"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_csv_of_any_spreadsheet(tree, mark, end):
    text = end.join(["label,note,path,split", 'cat,"a, note",cat/1.jpg,train', 'dog,,"dog/1.jpg",Validation', ""])
    opened = open_source(write_csv(tree(SIMPLE), mark + text.encode()))
    assert labels(opened) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}
    assert splits(opened) == {"cat/1.jpg": "train", "dog/1.jpg": "val"}


def test_an_empty_split_column_is_none(tree):
    opened = open_source(write_csv(tree(SIMPLE), "path,label,split\ncat/1.jpg,cat,\ndog/1.jpg,dog,\n"))
    assert set(splits(opened).values()) == {None}


def test_labels_of_tables_are_in_natural_order(tree):
    rows = "".join(f"{n}.jpg,{n}\n" for n in (10, 9, 1))
    assert open_source(write_csv(tree(SIMPLE), "path,label\n" + rows)).classes == ["1", "9", "10"]


@linux_only
def test_odd_names_in_a_csv(tree):
    root = tree({"cat/a,b.jpg": b"1", "cat/line\nbreak.jpg": b"2"})
    with open(os.path.join(os.fsencode(root), b"cat", b"caf\xe9.jpg"), "wb") as file:
        file.write(b"3")
    text = b'path,label\n"cat/a,b.jpg",x\n"cat/line\nbreak.jpg",x\ncat/caf\xe9.jpg,y\n'
    assert sorted(contents(open_source(write_csv(root, text))).values()) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.jpg,x\n", "needs the columns path and label; it has file, label"),
        ("path,labels\na.jpg,x y\n", "several labels"),
        ("path;label\na.jpg;x\n", "needs the columns"),
        ("", "needs the columns"),
        ("path,label\n", "no rows"),
        ("path,label\na.jpg,\n", "row 1: path and label must not be empty"),
        ("path,label\na.jpg,x\nb.jpg\n", "row 2: path and label must not be empty"),
        ("path,label\na.jpg,x\na.jpg,y\n", "row 2: 'a.jpg' has the labels 'x' and 'y'; several labels"),
        ("path,label,split\na.jpg,x,holdout\n", "row 1: split must be train, val or test; got 'holdout'"),
        ("path,label,split\na.jpg,x,train\nb.jpg,x,\n", "some rows have a split and some have none"),
        ('path,label\n"a.jpg"x,y\n', "cannot read the table"),
        ("path,label\n" + "x" * 200_000 + ",y\n", "cannot read the table"),
    ],
)
def test_tables_that_are_refused(tree, text, words):
    with pytest.raises(DataError, match=words):
        open_source(write_csv(tree(SIMPLE), text))


def test_a_row_that_stands_twice_counts_once(tree):
    opened = open_source(write_csv(tree(SIMPLE), "path,label\ncat/1.jpg,cat\ncat/1.jpg,cat\ndog/1.jpg,dog\n"))
    assert len(opened.files) == 2


def test_a_photo_missing_from_the_disk_is_unreadable_not_fatal(tree):
    opened = open_source(write_csv(tree(SIMPLE), "path,label\ncat/1.jpg,cat\ngone.jpg,dog\n"))
    with pytest.raises(PhotoError) as caught:
        opened.read("gone.jpg")
    assert caught.value.kind == "unreadable"


def write_parquet(path, columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_parquet_table(tree):
    root = tree(SIMPLE)
    columns = {"path": ["cat/1.jpg", "dog/1.jpg"], "label": [10, 9], "split": ["train", "test"]}
    opened = open_source(write_parquet(root / "t.parquet", columns))
    assert opened.classes == ["9", "10"]
    assert splits(opened) == {"cat/1.jpg": "train", "dog/1.jpg": "test"}
    assert contents(opened) == {"cat/1.jpg": b"c1", "dog/1.jpg": b"d1"}


def test_parquet_tables_that_are_refused(tree):
    root = tree(SIMPLE)
    with pytest.raises(DataError, match="several labels a photo"):
        open_source(write_parquet(root / "a.parquet", {"path": ["a.jpg"], "label": [["x", "y"]]}))
    with pytest.raises(DataError, match="needs the columns"):
        open_source(write_parquet(root / "b.parquet", {"path": ["a.jpg"]}))
    with pytest.raises(DataError, match="row 1: path and label must not be empty"):
        open_source(write_parquet(root / "c.parquet", {"path": ["a.jpg"], "label": [None]}))
    (root / "d.parquet").write_bytes(b"PAR1 no such thing")
    with pytest.raises(DataError, match="cannot read the table"):
        open_source(root / "d.parquet")


def test_a_list_of_rows(tree):
    root = tree(SIMPLE)
    opened = open_source([(root / "cat" / "1.jpg", "cat"), (str(root / "dog" / "1.jpg"), 7)])
    assert list(contents(opened).values()) == [b"c1", b"d1"]
    assert opened.classes == ["7", "cat"]
    opened = open_source([(root / "cat" / "1.jpg", "cat", "train"), [root / "dog" / "1.jpg", "dog", "dev"]])
    assert list(splits(opened).values()) == ["train", "val"]
    with pytest.raises(DataError, match="several labels a photo"):
        open_source([("a.jpg", ["x", "y"])])
    with pytest.raises(DataError, match="several labels a photo"):
        open_source([("a.jpg", "x"), ("a.jpg", "y")])


def test_a_list_may_be_a_generator_and_mix_rows(tree):
    opened = open_source((name, name[0]) for name in ("b.jpg", "a.jpg"))
    assert opened.classes == ["a", "b"]
    with pytest.raises(DataError, match="some rows have a split and some have none"):
        open_source([("a.jpg", "x"), ("b.jpg", "y", "train")])


def test_a_data_frame(tree, monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tree(SIMPLE))
    frame = pandas.DataFrame({"path": ["cat/1.jpg", "dog/1.jpg"], "label": [2, 10], "more": [0.1, 0.2]})
    opened = open_source(frame)
    assert opened.classes == ["2", "10"]
    assert contents(opened) == {"cat/1.jpg": b"c1", "dog/1.jpg": b"d1"}
    assert splits(open_source(frame.assign(split=["train", "test"]))) == {"cat/1.jpg": "train", "dog/1.jpg": "test"}
    assert set(splits(open_source(frame.assign(split=[None, None]))).values()) == {None}
    for missing in (None, float("nan"), pandas.NA, pandas.NaT):
        with pytest.raises(DataError, match="row 2: path and label must not be empty"):
            open_source(frame.assign(label=pandas.Series(["x", missing], dtype=object)))
    with pytest.raises(DataError, match="several labels a photo"):
        open_source(frame.assign(label=[["x"], ["y", "z"]]))
    with pytest.raises(DataError, match=r"needs the columns path and label; it has file"):
        open_source(pandas.DataFrame({"file": []}))


# TensorFlow Datasets.


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A folder of prepared TFDS data sets: `kerastk_tiny` (four splits) and `kerastk_unlabelled`."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class KerastkTiny(tfds.core.GeneratorBasedBuilder):
        # TFDS looks for the source of a builder that lies in a package.
        __module__ = "kerastk_builders"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("whole", "train_only")]  # noqa: RUF012

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["cat/big", "ant"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            names = ("train", "validation", "test", "extra") if self.builder_config.name == "whole" else ("train",)
            return {name: self._generate_examples(number) for number, name in enumerate(names)}

        def _generate_examples(self, shift):
            for number in range(4):
                pixels = np.full((8, 8, 3), 40 * number + shift, np.uint8)
                yield number, {"image": pixels, "label": number % 2}

    class KerastkUnlabelled(tfds.core.GeneratorBasedBuilder):
        __module__ = "kerastk_builders"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "name": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"image": np.zeros((8, 8, 3), np.uint8), "name": "x"}

    folder = tmp_path_factory.mktemp("tfds")
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    for builder in (
        KerastkTiny(config="whole", data_dir=folder),
        KerastkTiny(config="train_only", data_dir=folder),
        KerastkUnlabelled(data_dir=folder),
    ):
        builder.download_and_prepare(download_config=offline)
    return folder


def test_a_tfds_data_set(tfds_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_folder))
    opened = open_source("tfds:kerastk_tiny/whole")
    assert opened.classes == ["ant", "cat-big"]
    assert Counter(splits(opened).values()) == {"train": 4, "val": 4, "test": 4}
    greys = {(file.split, file.label, int(whole(opened.read(file.path))[0, 0, 0])) for file in opened.files}
    assert greys == {
        (split, ("cat-big", "ant")[number % 2], 40 * number + shift)
        for shift, split in enumerate(("train", "val", "test"))
        for number in range(4)
    }
    again = open_source("tfds:kerastk_tiny/whole:1.0.0")
    assert again.files == opened.files
    assert open_source("tfds:kerastk_tiny/train_only").files[0].split is None
    with pytest.raises(DataError, match="has no image and label; it has image, name"):
        open_source("tfds:kerastk_unlabelled")
    with pytest.raises(DataError, match="cannot be loaded at version"):
        open_source("tfds:kerastk_tiny:9.9.9")


def test_data_sets_that_come_with_tfds_know_their_downloads(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    assert tfds.builder("mnist", data_dir=tmp_path).url_infos
