"""A real TensorBoard on a run, opened in a real browser."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PICTURE = Path(__file__).parents[2] / "build" / "tensorboard.png"
# Of the page's own clock: what it loads takes as long as it takes.
SETTLED_MS = 8000


class Text(HTMLParser):
    """The words of a page."""

    def __init__(self, page):
        super().__init__()
        self.found, self._hidden = [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._hidden = tag in ("style", "script")

    def handle_data(self, data):
        if not self._hidden:
            self.found += data.split()


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def page(small_run, tmp_path_factory):
    """The address of a TensorBoard that shows the runs beside `small_run`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", small_run.path.parent, "--host", "127.0.0.1"]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=file, stderr=file)
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            try:
                if len(json.loads(get(address + "data/runs"))) == 2:
                    break
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.25)
        else:
            pytest.fail(f"no runs after a minute: {log.read_text()}")
        yield address
    finally:
        process.terminate()
        # On a busy machine it takes its time.
        process.wait(60)


def browse(address, folder, *options):
    if BROWSER is None:
        pytest.skip("no chromium and no google-chrome on the PATH")
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}"]
    done = subprocess.run(
        [BROWSER, *common, "--window-size=1400,1000", f"--virtual-time-budget={SETTLED_MS}", *options, address],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_shows_the_run_and_its_figures(page, small_run, tmp_path):
    words = Text(browse(page + "#timeseries", tmp_path, "--dump-dom")).found
    text = " ".join(words)
    for split in ("train", "validation"):
        assert f"{small_run.path.name}/events/{split}" in re.sub(r"/ ", "/", text)
    for tag in ("accuracy", "cross_entropy", "learning_rate", "photos_per_second", "final"):
        assert tag in words, text
    for tab in ("Images", "Graphs", "Text", "PR Curves", "HParams", "Projector"):
        assert tab.lower() in text.lower(), text
    assert "No dashboards are active" not in text


def test_a_picture_of_it_can_be_looked_at(page, tmp_path):
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.unlink(missing_ok=True)
    browse(page + "#scalars", tmp_path, f"--screenshot={PICTURE}")
    pixels = np.asarray(Image.open(PICTURE).convert("RGB")).astype(int)
    assert pixels.shape == (1000, 1400, 3)
    # TensorBoard's orange above; in the first chart the curves of both runs, in their colours.
    assert np.abs(pixels[20, 700] - (245, 124, 0)).max() < 12
    for colour in ((255, 112, 67), (0, 119, 187)):
        assert (np.abs(pixels[230:410, 420:720] - colour).max(axis=2) < 30).sum() > 50


def test_its_plugins_find_what_is_theirs(page, small_run):
    train, validation = (f"{small_run.path.name}/events/{split}" for split in ("train", "validation"))
    assert json.loads(get(page + "data/plugin/projector/runs")) == [validation]
    where = urllib.parse.urlencode({"run": validation, "name": "features of the validation photos"})
    assert len(get(f"{page}data/plugin/projector/tensor?{where}")) == 24 * 256 * 4
    assert get(f"{page}data/plugin/projector/metadata?{where}").startswith(b"label\tprediction\tphoto\n0\t")
    assert get(f"{page}data/plugin/projector/sprite_image?{where}").startswith(b"\xff\xd8")
    tags = json.loads(get(page + "data/plugin/pr_curves/tags"))
    assert len(tags[validation]) == 2 * (4 + 1)
    graph = urllib.parse.urlencode({"run": train, "conceptual": "false"})
    assert b"stage_5/" in get(f"{page}data/plugin/graphs/graph?{graph}")
    body = json.dumps(
        {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": [{"metric": {"tag": "final/test_accuracy"}}],
         "startIndex": 0, "sliceSize": 9}
    ).encode()  # fmt: skip
    asked = urllib.request.Request(page + "data/plugin/hparams/session_groups", body, {"Content-Type": "text/plain"})
    (group,) = json.loads(get(asked))["sessionGroups"]
    assert group["name"].startswith(small_run.path.name)
    (figure,) = [each["value"] for each in group["metricValues"] if each["name"]["tag"] == "final/test_accuracy"]
    assert figure == pytest.approx(small_run.metrics["test"]["accuracy"])
