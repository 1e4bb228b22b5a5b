import hashlib
import io
import threading

import numpy as np
import pytest
from PIL import Image

from kerastk.datasets.check import Look, Photo
from kerastk.datasets.source import Source
from kerastk.errors import DataError


@pytest.fixture(scope="session")
def picture():
    """A smooth random picture, another one for each seed: (height, width, 3) uint8."""

    def make(seed=0, *, width=64, height=48):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture(scope="session")
def encode():
    """Pixels or a Pillow image as the bytes of a file."""

    def make(pixels, format="PNG", **options):
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return make


@pytest.fixture
def tree(tmp_path):
    """Writes a folder from {relative name: bytes} and returns it."""

    def make(files, name="photos"):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    return make


@pytest.fixture(scope="session")
def within():
    """The result of a call that must not hang."""

    def call(seconds, function, *args):
        results = []

        def run():
            try:
                results.append((function(*args), None))
            except BaseException as error:
                results.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
        assert results, f"still running after {seconds} s"
        value, error = results[0]
        if error is not None:
            raise error
        return value

    return call


@pytest.fixture(scope="session")
def sha():
    """A made-up SHA-256 for each number, in no particular order."""
    return lambda number: hashlib.sha256(f"photo {number}".encode()).hexdigest()


@pytest.fixture(scope="session")
def looked(sha):
    """A `Look` at made-up photos, from rows of (path, label) and optionally split, SHA-256 and group."""

    def make(rows, findings=(), classes=None):
        photos = []
        for number, (path, label, *rest) in enumerate(rows):
            split, digest, group = [*rest, None, None, None][:3]
            digest = digest or sha(number)
            photos.append(Photo(path, label, split, digest, group or digest, "PNG", 8, 8, "RGB"))
        classes = classes or sorted({photo.label for photo in photos})
        return Look(Source("made", [], [], None, classes), photos, list(findings))

    return make


@pytest.fixture
def refused(opened, tmp_path):
    """The line with which a module's `opened` refuses a file, from the file's name on."""

    def call(*args, **options):
        with pytest.raises(DataError) as caught:
            opened(*args, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        return message.replace(f"{tmp_path}/", "")

    return call
