import contextlib
import hashlib
import http.server
import json
import socket
import threading
import time

import pytest

from kerastk import download
from kerastk.errors import WeightsError
from kerastk.networks import bases, weights
from kerastk.networks.bases import Base
from kerastk.storage import cache_folder

CONTENT = bytes(range(256)) * 200
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
# One for which Keras declares a hash, and one for which it does not.
DECLARED = Base("ResNet50", 224, "caffe", "resnet", "declared_notop.h5", MD5)
UNDECLARED = Base("MobileNetV2", 224, "tf", "mobilenet_v2", "undeclared_no_top.h5", "")


class _Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `mode` says how. `asked` holds the methods and paths that were asked for."""

    daemon_threads = True
    mode = "whole"
    content = CONTENT

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = []
        self.released = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._head()

    def do_GET(self):
        if not self._head():
            return
        if self.server.mode == "stalls":
            self.wfile.write(self.server.content[:1000])
            self.wfile.flush()
            self.server.released.wait(20)
        elif self.server.mode == "cut":
            self.wfile.write(self.server.content[: len(self.server.content) // 2])
        else:
            self.wfile.write(self.server.content)

    def _head(self):
        self.server.asked.append((self.command, self.path))
        if self.server.mode == "silent":
            self.server.released.wait(20)
            return False
        if self.server.mode == "missing":
            self.send_error(404)
            return False
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        return True


@pytest.fixture
def server(monkeypatch):
    made = _Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setattr(bases, "ADDRESS", f"http://127.0.0.1:{made.server_port}/tensorflow/keras-applications/")
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """Keras's folder of weights, still to be made; and no proxy, no mirror."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("KERASTK_WEIGHTS", raising=False)
    return tmp_path / "keras" / "models"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("KERASTK_WEIGHTS", str(folder))
    return folder


def _left(models):
    return [path.name for path in models.iterdir()] if models.exists() else []


def _cannot(base, models):
    """The one line of the refusal; nothing half fetched is left."""
    with pytest.raises(WeightsError) as caught:
        weights.imagenet(base)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"cannot download {base.address}: ")
    assert f". Put {base.file} into {models} or into a folder named by KERASTK_WEIGHTS, or use" in message
    assert "--weights FILE, --weights none, --base mini, which ships with kerastk, or another base" in message
    assert _left(models) == []
    return message


@pytest.mark.parametrize("base", [DECLARED, UNDECLARED], ids=["declared", "undeclared"])
def test_a_whole_file_is_fetched_once(base, server, models):
    path = weights.imagenet(base)

    assert path == models / base.file
    assert path.read_bytes() == CONTENT
    assert _left(models) == [base.file]
    folder = f"/tensorflow/keras-applications/{base.folder}/{base.file}"
    assert server.asked == [("HEAD", folder), ("GET", folder)]
    # Where Keras declares no hash, that of the download is what later uses are held to.
    assert (cache_folder() / "weights.json").exists() == (base is UNDECLARED)
    assert weights.imagenet(base) == path
    assert len(server.asked) == 2


def test_the_first_efficientnets_lie_beside_the_others(server, models):
    base = Base("EfficientNetB0", 224, "inside", ".", "efficient_notop.h5", MD5)
    weights.imagenet(base)
    assert server.asked[-1] == ("GET", "/keras-applications/efficient_notop.h5")


def test_a_file_with_another_name_at_the_address_keeps_its_own_here(server, models):
    base = Base("NASNetMobile", 224, "tf", "nasnet", "nasnet_no_top.h5", MD5, remote="NASNet-no-top.h5")
    assert weights.imagenet(base) == models / "nasnet_no_top.h5"
    assert server.asked[-1] == ("GET", "/tensorflow/keras-applications/nasnet/NASNet-no-top.h5")


@pytest.mark.parametrize("base", [DECLARED, UNDECLARED], ids=["declared", "undeclared"])
def test_a_cut_download_is_refused(base, server, models):
    server.mode = "cut"
    assert "got only 25600 out of 51200 bytes" in _cannot(base, models)
    server.mode = "whole"
    assert weights.imagenet(base).read_bytes() == CONTENT


def test_a_download_with_a_wrong_hash_is_refused(server, models):
    server.content = CONTENT[:-1] + b"x"
    assert "hash does not match" in _cannot(DECLARED, models)


def test_a_missing_file_is_refused(server, models):
    server.mode = "missing"
    assert "the server answers 404 Not Found." in _cannot(DECLARED, models)
    assert [method for method, _ in server.asked] == ["HEAD"]


def test_a_server_that_never_answers_is_refused_soon(server, models, monkeypatch):
    server.mode = "silent"
    monkeypatch.setattr(download, "PROBE_SECONDS", 1.3)
    begin = time.monotonic()
    message = _cannot(DECLARED, models)
    assert time.monotonic() - begin < 4
    assert "timed out" in message or "no answer within" in message


def test_a_name_service_that_hangs_is_refused_soon(models, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20))
    monkeypatch.setattr(bases, "ADDRESS", "http://weights.invalid/tensorflow/keras-applications/")
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.4)
    begin = time.monotonic()
    assert "no answer within 0.4 seconds." in _cannot(DECLARED, models)
    assert time.monotonic() - begin < 4
    released.set()


def test_a_download_that_stalls_is_refused(server, models, monkeypatch):
    server.mode = "stalls"
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)
    before = socket.getdefaulttimeout()
    assert "timed out" in _cannot(DECLARED, models)
    assert socket.getdefaulttimeout() == before


def test_a_closed_port_is_refused(models, monkeypatch):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(bases, "ADDRESS", f"http://127.0.0.1:{port}/tensorflow/keras-applications/")
    begin = time.monotonic()
    assert "refused" in _cannot(DECLARED, models)
    assert time.monotonic() - begin < 4


def test_the_whole_wait_for_an_unreachable_address_is_under_ten_seconds():
    assert download.PROBE_SECONDS < 10


def test_a_folder_that_cannot_be_made_is_refused(server, models):
    models.parent.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="cannot download") as caught:
        weights.imagenet(DECLARED)
    assert "\n" not in str(caught.value)


def test_the_mirror_comes_first(server, models, mirror):
    models.mkdir(parents=True)
    (models / DECLARED.file).write_bytes(CONTENT)
    assert weights.imagenet(DECLARED) == models / DECLARED.file
    (mirror / DECLARED.file).write_bytes(CONTENT)
    assert weights.local(DECLARED) == mirror / DECLARED.file
    assert weights.imagenet(DECLARED) == mirror / DECLARED.file
    assert server.asked == []


def test_what_the_mirror_lacks_is_fetched(server, models, mirror):
    assert weights.local(DECLARED) is None
    assert weights.imagenet(DECLARED) == models / DECLARED.file


def test_a_damaged_file_of_the_mirror_is_refused(server, models, mirror):
    (mirror / DECLARED.file).write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"mirror.declared_notop\.h5 is damaged: its md5 is .*, Keras's is " + MD5):
        weights.imagenet(DECLARED)
    assert server.asked == []


def test_a_sha256_is_told_from_an_md5(mirror):
    base = Base("ConvNeXtTiny", 224, "inside", "convnext", "next_notop.h5", SHA256)
    (mirror / base.file).write_bytes(CONTENT)
    assert weights.verify(base, weights.imagenet(base)) == "keras"
    (mirror / base.file).write_bytes(CONTENT + b"x")
    with pytest.raises(WeightsError, match=f"its sha256 is .*, Keras's is {SHA256}"):
        weights.imagenet(base)


def test_the_hash_of_the_first_use_is_recorded_and_a_change_refused(mirror):
    path = mirror / UNDECLARED.file
    path.write_bytes(CONTENT)
    assert weights.verify(UNDECLARED, weights.imagenet(UNDECLARED)) == "recorded"
    assert json.loads((cache_folder() / "weights.json").read_text()) == {UNDECLARED.file: SHA256}

    path.write_bytes(CONTENT + b"x")
    with pytest.raises(WeightsError, match="is not the file of earlier runs") as caught:
        weights.imagenet(UNDECLARED)
    assert str(cache_folder() / "weights.json") in str(caught.value)
    # A refusal records nothing.
    assert json.loads((cache_folder() / "weights.json").read_text()) == {UNDECLARED.file: SHA256}
    path.write_bytes(CONTENT)
    assert weights.imagenet(UNDECLARED) == path


@pytest.mark.parametrize("record", ["", "{", "[]", "null"])
def test_a_damaged_record_is_begun_anew(record, mirror):
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "weights.json").write_text(record)
    (mirror / UNDECLARED.file).write_bytes(CONTENT)
    assert weights.verify(UNDECLARED, mirror / UNDECLARED.file) == "recorded"
    assert json.loads((cache_folder() / "weights.json").read_text()) == {UNDECLARED.file: SHA256}


def test_a_file_goes_into_keras_cache_whole_and_only_when_it_differs(tmp_path, models):
    given = tmp_path / "given.h5"
    given.write_bytes(CONTENT)
    weights.into_keras_cache(DECLARED, given)
    target = models / DECLARED.file
    assert target.read_bytes() == CONTENT
    before = target.stat().st_ino
    weights.into_keras_cache(DECLARED, given)
    assert target.stat().st_ino == before
    given.write_bytes(CONTENT + b"x")
    weights.into_keras_cache(DECLARED, given)
    assert target.read_bytes() == CONTENT + b"x"
    assert _left(models) == [DECLARED.file]


def test_an_unreadable_file_is_one_line(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read .*: Is a directory\."):
        weights.file_hash(tmp_path)
