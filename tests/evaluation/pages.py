"""What the tests of reports ask of a page: that it is whole by itself, and right in a browser."""

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BUILD = Path(__file__).parents[2] / "build"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src="http://evil.example/x">',
    "a' onload='alert(1)",
    "x" * 400,
    "é\u202e☃",
]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.text += " " * (tag in ("td", "th"))

    def handle_data(self, data):
        self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def loads_nothing(page):
    """Whether the page is whole by itself, and holds no script."""
    elements = Elements(page)
    for tag, attributes in elements.found:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        assert not [name for name in attributes if name.startswith("on")], attributes
        assert "url(" not in attributes.get("style", "")
        for name in ("src", "srcset", "background", "poster", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:"), attributes
        # A link is followed by a click alone.
        assert tag == "a" or "href" not in attributes
    assert "url(" not in page.partition("</style>")[0]
    assert "@import" not in page
    policy = [each["content"] for each in elements.named("meta") if "content-security-policy" in str(each).lower()]
    assert policy[0].startswith("default-src 'none'")
    return True


def words(page):
    return " ".join(Elements(page).text.replace("\u202f", " ").split())


def spoil(run, name, change):
    content = json.loads((run.path / name).read_text())
    change(content)
    (run.path / name).write_text(json.dumps(content))


def is_made_again(run, folder):
    """`kerastk report` makes the very same page from a run folder alone, and loads nothing large for it."""
    copy = folder / run.path.name
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("events", "model.keras", "report.html"))
    code = f"import sys\nsys.argv = ['kerastk', 'report', {str(copy)!r}]\nfrom kerastk.cli import main\nmain()\n"
    code += "print([name for name in ('keras', 'tensorflow', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(copy / "report.html"), "[]"], done.stderr
    again = (copy / "report.html").read_text().replace(str(copy), str(run.path))
    assert again == run.report_html.read_text()


def chromium(*arguments):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to take a picture with")
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def looks_right(run, name, height):
    """Pictures of the report, light and dark: paper around the text, and a page that is not empty."""
    BUILD.mkdir(exist_ok=True)
    taken = {}
    for mode, more in (("light", []), ("dark", ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"])):
        path = BUILD / f"{name}-{mode}.png"
        path.unlink(missing_ok=True)
        chromium(f"--screenshot={path}", f"--window-size=1100,{height}", *more, run.report_html.as_uri())
        taken[mode] = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (taken["light"][3, 3] == 255).all()
    assert taken["dark"][3, 3].max() < 50
    assert all(len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200 for pixels in taken.values())


def fits_a_phone(folder, *runs):
    """On a phone nothing stands out of their reports to the right, whatever the names are."""
    frames = folder / "frames.html"
    frames.write_text(
        "".join(
            f'<iframe src="{run.report_html.as_uri()}" width="390" height="800" onload="document.title += '
            "this.contentDocument.documentElement.scrollWidth + ','\"></iframe>"
            for run in runs
        )
    )
    page = chromium("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", frames.as_uri())
    widths = [int(width) for width in page.partition("<title>")[2].partition(",<")[0].split(",")]
    assert len(widths) == len(runs)
    assert min(widths) > 300
    assert max(widths) <= 390
