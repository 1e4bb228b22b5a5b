import gzip
import hashlib
import http.server
import socket
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner

import kerastk
from kerastk import download, shipped
from kerastk.cli import commands, main
from kerastk.datasets import public
from kerastk.datasets.arrays import open_arrays
from kerastk.errors import DataError
from kerastk.storage import cache_folder

SHIPPED = ["cifar10", "cifar100", "fashion-mnist", "kmnist", "mnist"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_manifest_declares_what_tensorflow_datasets_does(name):
    import tensorflow_datasets

    folder = Path(tensorflow_datasets.__file__).parent / "url_checksums"
    lines = (folder / f"{name.replace('-', '_')}.txt").read_text().split("\n")
    theirs = {tuple(line.split("\t")) for line in lines if line}
    data = public.find(name)
    assert {(file.address, str(file.bytes), file.sha256, file.file) for file in data.files} == theirs


@pytest.mark.parametrize("name", SHIPPED)
def test_a_manifest_tells_what_the_data_is(name):
    data = public.find(name)
    assert (data.name, data.bytes) == (name, sum(file.bytes for file in data.files))
    assert all((data.what.endswith("."), data.licence, data.home.startswith("http"), data.paper))
    assert len(set(data.classes)) == len(data.classes) == (100 if name == "cifar100" else 10)
    assert data.items == {"train": 50_000 if name.startswith("cifar") else 60_000, "test": 10_000}
    # Labels of IDX files get names by the file that is written beside them.
    assert (data.class_names is not None) == (name in ("fashion-mnist", "kmnist"))


def test_all_manifests_are_known():
    assert public.names() == SHIPPED


# Small data sets of the same kinds, on a server of our own.

RANDOM = np.random.default_rng(0)
SHIRTS = ["T-shirt/top", "Trouser", "Pullover"]


def idx(values):
    return gzip.compress(struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())


IDX = {}
for _split, _rows in (("train", 6), ("t10k", 3)):
    IDX[f"{_split}-images-idx3-ubyte.gz"] = idx(RANDOM.integers(0, 256, (_rows, 5, 4), np.uint8))
    IDX[f"{_split}-labels-idx1-ubyte.gz"] = idx(np.arange(_rows, dtype=np.uint8) % 3)
SETS = {"digits": (IDX, ["0", "1", "2"]), "shirts": (IDX, SHIRTS), "single": ({"x.tar.gz": bytes(500)}, SHIRTS)}


class _Server(http.server.ThreadingHTTPServer):
    """Serves the files of SETS, but for `spoiled` in their place. `asked` holds the names of those that were got."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked, self.spoiled = [], {}


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._head()

    def do_GET(self):
        content = self._head()
        if content is not None:
            self.server.asked.append(self.path.rpartition("/")[2])
            self.wfile.write(content)

    def _head(self):
        _, name, file = self.path.split("/")
        content = self.server.spoiled.get(file, SETS[name][0][file])
        if content is None:
            self.send_error(503)
            return None
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = _Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name, (files, classes) in SETS.items():
        tables = [
            {
                "address": f"http://127.0.0.1:{made.server_port}/{name}/{file}", "file": file, "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for file, content in files.items()
        ]  # fmt: skip
        about = {key: f"{key} of {name}" for key in ("what", "licence", "home", "paper")}
        given = {"name": name, **about, "classes": classes, "items": {"train": 6, "test": 3}, "files": tables}
        (folder / f"{name}.toml").write_text(tomli_w.dumps(given))
    (folder / "README.md").write_text("")
    (folder / "names.conll").write_text("")
    monkeypatch.setattr(shipped, "folder", lambda _: folder)
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "*")
    monkeypatch.delenv("KERASTK_DATA", raising=False)
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def mirror(server, tmp_path, monkeypatch):
    """Makes KERASTK_DATA hold some files of a data set, and returns their folder."""

    def make(name, files):
        folder = tmp_path / "mirror" / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        monkeypatch.setenv("KERASTK_DATA", str(tmp_path / "mirror"))
        return folder

    return make


def _refused(name):
    with pytest.raises(DataError) as caught:
        shipped.data(f"kerastk:{name}")
    message = str(caught.value)
    assert "\n" not in message
    return message


def _in_cache(name):
    return cache_folder() / "data" / name


def _left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_files_are_fetched_once_and_read(server):
    path = shipped.data("kerastk:digits")
    assert path == str(_in_cache("digits"))
    assert _left(_in_cache("digits")) == sorted(IDX)
    assert server.asked == list(IDX)
    found = open_arrays(path)
    assert (found.name, found.values.shape) == ("digits", (9, 5, 4, 1))
    assert found.labels == ["0", "1", "2", "0", "1", "2", "0", "1", "2"]
    assert shipped.data("kerastk:digits") == path
    assert server.asked == list(IDX)


def test_labels_that_are_numbers_in_the_files_get_their_names(server):
    look = kerastk.check("kerastk:shirts")
    assert [photo.label for photo in look.photos] == SHIRTS * 3
    assert {finding.kind for finding in look.findings} == {"tiny-class"}
    assert _left(_in_cache("shirts")) == sorted([*IDX, "classes.txt"])


def test_of_a_single_file_the_path_is_its_own(server):
    path = shipped.data("kerastk:single")
    assert path == str(_in_cache("single") / "x.tar.gz")
    assert _left(_in_cache("single")) == ["x.tar.gz"]


def test_what_was_interrupted_goes_on_with_the_files_that_are_missing(server):
    first, second, *rest = IDX
    server.spoiled[second] = None
    message = _refused("digits")
    assert f"/digits/{second}: the server answers 503 Service Unavailable. Put {second}, {rest[0]}, " in message
    assert f", {rest[-1]} into {_in_cache('digits')} or" in message
    assert _left(_in_cache("digits")) == [first]
    server.spoiled.clear()
    assert shipped.data("kerastk:digits") == str(_in_cache("digits"))
    assert server.asked == [first, second, *rest]


def test_a_download_with_a_wrong_hash_leaves_nothing(server):
    first = next(iter(IDX))
    server.spoiled[first] = IDX[first][:-1] + b"x"
    message = _refused("digits")
    assert message.startswith(f"cannot download http://127.0.0.1:{server.server_port}/digits/{first}: ")
    assert "hash does not match" in message
    assert _left(_in_cache("digits")) == []


def test_offline_one_line_says_what_to_do(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for path in shipped.folder("data").glob("*.toml"):
        path.write_text(path.read_text().replace(str(server.server_port), str(port)))
    message = _refused("single")
    assert message.startswith(f"cannot download http://127.0.0.1:{port}/single/x.tar.gz: ")
    assert message.endswith(
        f"refused. Put x.tar.gz into {_in_cache('single')} or into a folder single of one that KERASTK_DATA names, or "
        "name another place by --data."
    )
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20))
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.4)
    assert "/x.tar.gz: no answer within 0.4 seconds. Put x.tar.gz into" in _refused("single")
    released.set()
    # What somebody brings is taken.
    _in_cache("single").mkdir(parents=True)
    (_in_cache("single") / "x.tar.gz").write_bytes(bytes(500))
    assert shipped.data("kerastk:single") == str(_in_cache("single") / "x.tar.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(499), "has 499 bytes, and 500 are expected"),
        (b"", "has 0 bytes, and 500 are expected"),
        (bytes(499) + b"x", f"its SHA-256 is {hashlib.sha256(bytes(499) + b'x').hexdigest()}, and "),
        (None, "is no file"),
    ],
)
@pytest.mark.parametrize("place", ["cache", "mirror"])
def test_a_damaged_file_is_refused_and_named(content, message, place, server, mirror):
    folder = mirror("single", {}) if place == "mirror" else _in_cache("single")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "x.tar.gz"
    path.mkdir() if content is None else path.write_bytes(content)
    told = _refused("single")
    assert told.startswith(f"{path} is damaged, or not the file of single: {message}")
    assert "Delete it to fetch it again; to read it as it is, name its path in place of the data set." in told
    assert server.asked == []
    if content is not None:
        path.unlink()
        assert shipped.data("kerastk:single") == str(_in_cache("single") / "x.tar.gz")


def test_a_file_is_hashed_once_and_again_when_it_has_changed(server, monkeypatch):
    path = Path(shipped.data("kerastk:single"))
    hashed = []
    monkeypatch.setattr(public, "file_hash", lambda each: hashed.append(each) or download.file_hash(each))
    shipped.data("kerastk:single")
    assert hashed == []
    path.write_bytes(bytes(500))
    shipped.data("kerastk:single")
    assert hashed == [path]
    path.write_bytes(bytes(499) + b"x")
    assert f"{path} is damaged" in _refused("single")
    # A record that is damaged, or cannot be written, costs only another hash.
    path.write_bytes(bytes(500))
    for record in ("", "{", "[]", "null", '{"x": 1}'):
        (cache_folder() / "data.json").write_text(record)
        hashed.clear()
        shipped.data("kerastk:single")
        assert hashed == [path]
    (cache_folder() / "data.json").unlink()
    (cache_folder() / "data.json").mkdir()
    assert shipped.data("kerastk:single") == str(path)


def test_a_folder_of_the_users_own_comes_first(server, mirror):
    folder = mirror("digits", IDX)
    assert shipped.data("kerastk:digits") == str(folder)
    single = mirror("single", {"x.tar.gz": bytes(500)})
    assert shipped.data("kerastk:single") == str(single / "x.tar.gz")
    assert server.asked == []
    assert not _in_cache("digits").exists()


def test_what_it_lacks_is_fetched_into_the_cache_beside_a_copy_of_the_rest(server, mirror):
    first, *rest = IDX
    folder = mirror("digits", {name: IDX[name] for name in rest})
    assert shipped.data("kerastk:digits") == str(_in_cache("digits"))
    assert server.asked == [first]
    assert {name: (_in_cache("digits") / name).read_bytes() for name in IDX} == IDX
    assert _left(folder) == sorted(rest)


def test_classes_have_the_same_names_wherever_the_files_are(server, mirror):
    folder = mirror("shirts", IDX)
    path = shipped.data("kerastk:shirts")
    assert path == str(_in_cache("shirts"))
    assert open_arrays(path).labels == SHIRTS * 3
    for content in (b"\xff", b"a\nb\nc\n"):
        (folder / "classes.txt").write_bytes(content)
        assert shipped.data("kerastk:shirts") == path
    (folder / "classes.txt").write_text("T-shirt/top\nTrouser\nPullover\n")
    assert shipped.data("kerastk:shirts") == str(folder)
    assert server.asked == []


@pytest.mark.parametrize("name", ["digit", "", "../digits", "README", "x" * 200])
def test_of_an_unknown_name_all_that_there_are_are_told(name, server):
    message = _refused(name)
    told = "ships with kerastk; names does, and curves is made at first use, digits, shirts, single are fetched."
    assert message == f"no data {name[:80]!r} {told}"
    with pytest.raises(DataError, match=r"no public data set .*; there are digits, shirts, single\."):
        public.find(name)


def _run(*arguments):
    return CliRunner().invoke(commands, arguments, catch_exceptions=False).stdout


def test_the_command_line_lists_and_fetches(server, mirror, monkeypatch, capfd):
    lines = _run("data", "list").splitlines()
    assert lines[0].split() == ["name", "items", "MB", "licence", "where"]
    assert lines[3].split("  ") == ["single", "6 train + 3 test", "0.0", "licence of single", "-"]
    assert _run("data", "fetch", "single", "kerastk:digits").splitlines()[-1] == str(_in_cache("digits"))
    folder = mirror("shirts", dict([*IDX.items()][:3]))
    lines = [line.rpartition("  ")[2] for line in _run("data", "list").splitlines()]
    assert lines[1:] == [str(_in_cache("digits")), f"3 of 4 files in {folder}", str(_in_cache("single") / "x.tar.gz")]
    server.asked.clear()
    for arguments in (["shirts", "nothing"], []):
        monkeypatch.setattr(sys, "argv", ["kerastk", "data", "fetch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert "kerastk: no public data set 'nothing'; there are digits, shirts, single.\n" in err
    assert (out, server.asked) == ("", [])
