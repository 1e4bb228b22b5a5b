import os
import struct
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from kerastk.datasets import check as module
from kerastk.datasets.check import KINDS, check
from kerastk.datasets.facts import FactStore
from kerastk.datasets.source import open_source


def look_at(root, **options):
    return check(open_source(root), threads=2, **options)


def found(look, kind):
    return [set(finding.paths) for finding in look.findings if finding.kind == kind]


def paths(look):
    return [photo.path for photo in look.photos]


def groups(look):
    """The sets of paths that were taken for copies of one photo."""
    sets = {}
    for photo in look.photos:
        sets.setdefault(photo.group, set()).add(photo.path)
    return sorted((each for each in sets.values() if len(each) > 1), key=sorted)


@pytest.fixture(scope="session")
def many(picture, encode):
    """`count` different photos of each class as {name: bytes}."""

    def make(count=3, classes=("cat", "dog")):
        return {
            f"{name}/{number}.png": encode(picture(1000 + 100 * place + number))
            for place, name in enumerate(classes)
            for number in range(count)
        }

    return make


@pytest.fixture
def examined(monkeypatch):
    """Counts the photos that are decoded."""
    calls = []

    def counted(data, examine=module.examine):
        calls.append(data)
        return examine(data)

    monkeypatch.setattr(module, "examine", counted)
    return calls


def bomb(side=40_000):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def test_a_clean_folder(tree, many):
    files = many(12)
    look = look_at(tree(files))
    assert paths(look) == sorted(files)
    assert look.findings == look.bad == []
    assert groups(look) == []
    assert {(p.label, p.split, p.format, p.width, p.height, p.mode) for p in look.photos} == {
        ("cat", None, "PNG", 64, 48, "RGB"), ("dog", None, "PNG", 64, 48, "RGB"),
    }  # fmt: skip
    assert all(photo.group == photo.sha256 for photo in look.photos)


def test_progress_counts_all_files(tree, many):
    seen = []
    look_at(tree(many(3)), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def one_of_each_kind(tree, many, picture, encode):
    """A folder (given splits) and an archive with every kind of finding, each file named after its kind."""
    photo, near = (
        encode(picture(1, width=160, height=120)),
        encode(picture(1, width=160, height=120), "JPEG", quality=60),
    )
    root = tree({f"train/{name}": data for name, data in many(24).items()} | {
        "train/cat/damaged.png": encode(picture(0))[:300], "train/cat/empty.jpg": b"",
        "train/cat/oversized.png": bomb(),
        "train/cat/unsupported.tif": encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
        "train/cat/not-image.jpg": b"<html>", "train/cat/other-file.txt": b"hello", "train/no-class.jpg": photo,
        "train/cat/.hidden.jpg": photo, "train/cat/suffix.jpg": encode(picture(2)),
        "train/cat/copies-1.png": encode(picture(3)), "train/cat/copies-2.png": encode(picture(3)),
        "train/dog/near-copies-1.png": photo, "train/dog/near-copies-2.jpg": near,
        "train/cat/two-labels.png": encode(picture(4)), "train/dog/two-labels.png": encode(picture(4)),
        "train/cat/near-two-labels.png": encode(picture(5, width=160, height=120)),
        "train/dog/near-two-labels.jpg": encode(picture(5, width=160, height=120), "JPEG", quality=60),
        "train/cat/leak.png": encode(picture(6)), "test/cat/leak.png": encode(picture(6)),
        "test/tiny-class/1.png": encode(picture(7)), "test/tiny-class/2.png": encode(picture(8)),
    })  # fmt: skip
    (root / "train/dog/unreadable.jpg").symlink_to("nowhere")
    (root / "train/dog/link-loop").symlink_to(root)
    (root / "train/empty-folder").mkdir()
    os.mkfifo(root / "train/cat/not-a-file.jpg")
    packed = root.parent / "packed.tar"
    with tarfile.open(packed, "w") as archive:
        for name in ("cat/1.jpg", "../unsafe-path.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    return root, packed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_every_kind_of_finding(tree, many, picture, encode, within):
    root, packed = one_of_each_kind(tree, many, picture, encode)
    look = within(60, look_at, root)
    by_kind = {}
    for finding in [*look.findings, *look_at(packed).findings]:
        by_kind.setdefault(finding.kind, set()).update(finding.paths)
    for kind in KINDS:
        name = "tiny-class" if kind == "imbalance" else kind
        assert any(name in path for path in by_kind.get(kind, ())), (kind, by_kind.get(kind))
    assert found(look, "leak") == [{"train/cat/leak.png", "test/cat/leak.png"}]
    assert found(look, "suffix") == [{"train/cat/suffix.jpg"}]
    assert found(look, "tiny-class") == [{"tiny-class"}]
    lost = {"damaged.png", "empty.jpg", "oversized.png", "unsupported.tif", "not-image.jpg", "unreadable.jpg"}
    assert {os.path.basename(path) for finding in look.bad for path in finding.paths} == lost
    order = [list(KINDS).index(finding.kind) for finding in look.findings]
    assert order == sorted(order)


def test_class_sizes(tree, encode, picture):
    sizes = {"large": 31, "enough": 10, "small": 3}
    files = {
        f"{name}/{n}.png": encode(picture(100 * len(name) + n)) for name, size in sizes.items() for n in range(size)
    }
    look = look_at(tree(files | {"none/1.jpg": b""}))
    assert found(look, "tiny-class") == [{"none"}, {"small"}]
    [imbalance] = [finding for finding in look.findings if finding.kind == "imbalance"]
    assert imbalance.paths == ("large", "none")
    assert "31 against 0" in imbalance.text
    files = {f"{name}/{n}.png": encode(picture(n)) for name, size in (("a", 30), ("b", 3)) for n in range(size)}
    assert found(look_at(tree(files, "ten")), "imbalance") == []


# Copies.


def versions(picture, encode, seed=9):
    """One photo in several dresses: the first three hold the same pixels, the rest nearly."""
    pixels = picture(seed, width=160, height=120)
    small = Image.fromarray(pixels).resize((128, 96), Image.Resampling.LANCZOS)
    return {
        "a.png": encode(pixels), "b.bmp": encode(pixels, "BMP"), "c.png": encode(pixels),
        "d.jpg": encode(pixels, "JPEG", quality=60), "e.png": encode(small),
        "f.webp": encode(pixels, "WEBP", quality=50),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pair", "kind", "text"),
    [
        (("a.png", "c.png"), "copies", "the same bytes"),
        (("a.png", "b.bmp"), "copies", "the same pixels"),
        (("a.png", "d.jpg"), "near-copies", "nearly the same pixels"),
        (("a.png", "e.png"), "near-copies", "nearly the same pixels"),
        (("d.jpg", "e.png"), "near-copies", "nearly the same pixels"),
        (("b.bmp", "f.webp"), "near-copies", "nearly the same pixels"),
    ],
)
@pytest.mark.parametrize("where", ["one class", "two classes", "two splits"])
def test_copies_are_named(tree, many, picture, encode, pair, kind, text, where):
    files = versions(picture, encode)
    folders = {"one class": ("cat", "cat"), "two classes": ("cat", "dog"), "two splits": ("train/cat", "test/cat")}[
        where
    ]
    prefix = "train/" if where == "two splits" else ""
    names = [f"{folder}/copy-{name}" for folder, name in zip(folders, pair, strict=True)]
    root = tree(
        {prefix + name: data for name, data in many(3).items()}
        | {n: files[p] for n, p in zip(names, pair, strict=True)}
    )
    look = look_at(root)
    if where == "two classes":
        kind = kind.replace("copies", "two-labels")
    [finding] = [
        each for each in look.findings if each.kind in ("copies", "near-copies", "two-labels", "near-two-labels")
    ]
    assert finding.kind == kind
    assert set(finding.paths) == set(names)
    assert text in finding.text
    assert groups(look) == [set(names)]
    assert found(look, "leak") == ([set(names)] if where == "two splits" else [])
    if where == "two classes":
        assert "cat, dog" in finding.text


def test_all_versions_of_a_photo_are_one_group(tree, many, picture, encode):
    files = {f"cat/{name}": data for name, data in versions(picture, encode).items()}
    look = look_at(tree(many(3) | files))
    assert groups(look) == [set(files)]
    assert [len(each) for each in found(look, "near-copies")] == [6]


def test_a_turned_photo_and_its_upright_copy_are_the_same_pixels(tree, many, picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = encode(picture(3), exif=exif)
    upright = encode(Image.fromarray(picture(3)).transpose(Image.Transpose.ROTATE_270))
    look = look_at(tree(many(3) | {"cat/sideways.png": sideways, "cat/upright.png": upright}))
    assert found(look, "copies") == [{"cat/sideways.png", "cat/upright.png"}]


def test_different_photos_of_one_look_are_no_copies(tree, picture, encode):
    base = picture(1, width=160, height=120)
    flipped, brighter = base[:, ::-1], np.clip(base.astype(int) + 6, 0, 255).astype(np.uint8)
    stretched = np.asarray(Image.fromarray(base).resize((160, 80)))
    files = {"a/1.png": base, "a/2.png": flipped, "a/3.png": brighter, "b/4.png": stretched, "b/5.png": 255 - base}
    look = look_at(tree({name: encode(np.ascontiguousarray(pixels)) for name, pixels in files.items()}))
    assert groups(look) == []


def test_flat_pictures_are_copies_only_where_their_pixels_are_equal(tree, encode):
    greys = {f"a/{grey}.png": encode(np.full((40, 40, 3), grey, np.uint8)) for grey in (10, 11, 13, 200)}
    look = look_at(tree(greys | {"b/10.bmp": encode(np.full((40, 40, 3), 10, np.uint8), "BMP")}))
    assert groups(look) == [{"a/10.png", "b/10.bmp"}]
    assert found(look, "two-labels") == [{"a/10.png", "b/10.bmp"}]


def test_a_crowd_of_flat_pictures_is_looked_through_for_equal_pixels(tree, encode, monkeypatch):
    monkeypatch.setattr(module, "NEAR_CROWD", 5)
    files = {f"a/{n}.png": encode(np.full((40, 40, 3), 20 * n, np.uint8)) for n in range(9)}
    look = look_at(tree(files | {"b/x.bmp": encode(np.full((40, 40, 3), 60, np.uint8), "BMP")}))
    assert groups(look) == [{"a/3.png", "b/x.bmp"}]


def brightened(picture, encode, levels):
    base = picture(1, width=160, height=120) // 2 + 30
    return encode((base + levels).astype(np.uint8))


def test_near_copies_do_not_chain(tree, picture, encode):
    """Neighbours in a row of photos, each a little brighter, are near-copies; its ends are not."""
    row = {f"a/{n}.png": brightened(picture, encode, 3 * n) for n in range(8)}
    for one, other, expected in ((0, 1, True), (1, 2, True), (0, 2, False)):
        pair = {f"x/{n}.png": row[f"a/{n}.png"] for n in (one, other)}
        assert bool(groups(look_at(tree(pair, f"pair{one}{other}")))) is expected
    look = look_at(tree(row))
    assert groups(look)
    place = {photo.path: int(photo.path[2:-4]) for photo in look.photos}
    anchors = {photo.sha256: place[photo.path] for photo in look.photos if photo.group == photo.sha256}
    assert all(abs(place[photo.path] - anchors[photo.group]) <= 1 for photo in look.photos)
    assert len({photo.group for photo in look.photos}) >= 3


def test_groups_do_not_depend_on_names_or_order(tree, many, picture, encode):
    contents = [*many(3).values(), *versions(picture, encode).values(),
                *(brightened(picture, encode, 3 * n) for n in range(6))]  # fmt: skip
    roots = []
    for number, order in enumerate((1, -1)):
        files = {f"{'ab'[n % 2]}/{number}{n:02d}.img": data for n, data in enumerate(contents[::order])}
        roots.append(tree(files, f"folder{number}"))
    one, other = ({(photo.sha256, photo.group) for photo in look_at(root).photos} for root in roots)
    assert one == other


def test_real_photos_are_not_called_copies(shared):
    look = look_at(shared / "data" / "flowers5.zip")
    assert len(look.photos) == 1600
    assert [len(each) for each in groups(look)] == [2, 2]
    for finding in look.findings:
        assert finding.kind in ("copies", "two-labels")
        assert finding.text.startswith("the same bytes")


# The second look.


def test_a_second_look_decodes_nothing(tree, many, picture, encode, examined):
    files = (
        many(3)
        | {f"cat/{name}": data for name, data in versions(picture, encode).items()}
        | {"cat/bad.jpg": b"\xff\xd8\xff"}
    )
    root = tree(files)
    first = look_at(root)
    assert len(examined) >= len(set(files.values()))
    examined.clear()
    again = look_at(root)
    assert examined == []
    assert (again.photos, again.findings) == (first.photos, first.findings)
    root.rename(root.with_name("renamed"))
    assert look_at(root.with_name("renamed")).photos == first.photos
    assert examined == []
    (root.with_name("renamed") / "dog" / "new.png").write_bytes(encode(picture(77)))
    assert len(look_at(root.with_name("renamed")).photos) == len(first.photos) + 1
    assert len(examined) == 1


@pytest.mark.parametrize(
    "spoil", [lambda data: b"rubbish", lambda data: data[:5000], lambda data: data[:4096] + bytes(len(data))]
)
def test_the_check_survives_a_damaged_store(tree, many, picture, encode, tmp_path, monkeypatch, spoil):
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "cache"))
    root = tree(many(3) | {f"cat/{name}": data for name, data in versions(picture, encode).items()})
    first = look_at(root)
    [database] = (tmp_path / "cache").rglob("*.sqlite")
    for beside in database.parent.glob("*.sqlite-*"):
        beside.unlink()
    database.write_bytes(spoil(database.read_bytes()))
    again = look_at(root)
    assert (again.photos, again.findings) == (first.photos, first.findings)


def test_the_store_may_be_ones_own(tree, many, tmp_path, examined):
    store = FactStore(tmp_path / "mine.sqlite")
    root = tree(many(2))
    look_at(root, store=store)
    examined.clear()
    look_at(root, store=store)
    assert examined == []


# Damage.


def damages(picture, encode):
    """At least thirty ways in which a file in a class folder is no good photo."""
    jpeg = encode(picture(50, width=200, height=150), "JPEG", quality=90)
    png, webp = encode(picture(51, width=200, height=150)), encode(picture(52, width=200, height=150), "WEBP")
    gif, tiff = encode(picture(53), "GIF"), encode(picture(54), "TIFF", compression="tiff_lzw")
    bmp = encode(picture(55), "BMP")
    files = {f"cut-{part}.jpg": jpeg[: len(jpeg) * part // 100] for part in (1, 5, 20, 50, 80, 95)}
    files |= {f"cut-{part}.png": png[: len(png) * part // 100] for part in (1, 20, 50, 95)}
    files |= {f"cut-{part}.webp": webp[: len(webp) * part // 100] for part in (1, 50)}
    files |= {
        "cut.gif": gif[: len(gif) // 2], "cut.tif": tiff[: len(tiff) // 2], "cut.bmp": bmp[: len(bmp) // 2],
        "empty.jpg": b"", "zeros.jpg": bytes(5000), "ones.png": b"\xff" * 5000,
        "html.jpg": b"<!DOCTYPE html><html></html>",
        "text.jpg": b"just a text\n" * 40, "svg.png": b"<svg xmlns='x'/>", "json.png": b"{}", "bomb.png": bomb(),
        "heic.jpg": b"\0\0\0\x18ftypheic" + bytes(100), "zip.jpg": b"PK\x03\x04" + bytes(100),
        "start.jpg": b"\xff\xd8\xff",
        "headless.png": png[:8] + png[33:], "pixels.png": png[:60] + bytes(200) + png[260:],
        "crc.png": png[:20] + b"\0\0\7\xff" + png[24:],
        "float.tif": encode(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "no-suffix": b"what is this",
        "two\nlines.jpg": b"rubbish", "notes.txt": b"a text file", "movie.mp4": bytes(100), "model.py": b"import os",
        "\"quoted' ; rm -rf.jpg": b"rubbish",
    }  # fmt: skip
    return files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.filterwarnings("ignore")
def test_a_folder_full_of_damage_loses_no_good_photo(tree, many, picture, encode, within):
    bad = damages(picture, encode)
    assert len(bad) >= 30
    good = many(12) | {"cat/li\nne.png": encode(picture(60)), "dog/-rf \"'.png": encode(picture(61)),
                       "dog/gif.jpg": encode(picture(62), "GIF"),
                       "dog/a.b.c.JPG": encode(picture(63), "JPEG")}  # fmt: skip
    root = tree(good | {f"{('cat', 'dog')[n % 2]}/{name}": data for n, (name, data) in enumerate(bad.items())})
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "self.jpg").symlink_to("self.jpg")
    (root / "dog" / "gone.jpg").symlink_to("/nowhere/at/all.jpg")
    (root / "dog" / "folder.jpg").mkdir()
    os.mkfifo(root / "dog" / "pipe.jpg")
    if sys.platform == "linux":
        with open(os.path.join(os.fsencode(root), b"cat", b"caf\xe9.jpg"), "wb") as file:
            file.write(b"rubbish")
    (root / "cat" / "forbidden.jpg").write_bytes(b"rubbish")
    (root / "cat" / "forbidden.jpg").chmod(0)
    look = within(60, look_at, root)
    assert set(paths(look)) == set(good)
    told = {path for finding in look.findings for path in finding.paths}
    on_disk = {
        os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names
    }
    assert on_disk <= set(paths(look)) | told
    assert {"cat/loop", "dog/folder.jpg", "dog/pipe.jpg"} <= told
    others = {os.path.basename(path) for each in found(look, "other-file") for path in each}
    assert others == {"notes.txt", "movie.mp4", "model.py", "no-suffix"}


def test_a_damaged_archive_member_loses_no_good_photo(tree, many, tmp_path):
    packed = tmp_path / "x.zip"
    files = many(3)
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    data = packed.read_bytes()
    spoiled = "cat/1.png"
    place = data.find(files[spoiled])
    packed.write_bytes(data[:place] + bytes(len(files[spoiled])) + data[place + len(files[spoiled]) :])
    look = look_at(packed)
    assert found(look, "damaged") == [{spoiled}]
    assert set(paths(look)) == set(files) - {spoiled}


def test_a_photo_that_vanishes_between_list_and_look(tree, many):
    root = tree(many(3))
    source = open_source(root)
    (root / "cat" / "1.png").unlink()
    look = check(source)
    assert found(look, "unreadable") == [{"cat/1.png"}]
    assert len(look.photos) == 5


def test_web_photos_of_all_sorts_are_used_or_listed(shared):
    archive = shared / "data" / "weather4.zip"
    look = look_at(archive)
    with zipfile.ZipFile(archive) as packed:
        names = {member.filename for member in packed.infolist() if not member.is_dir()}
    lost = {path for finding in look.bad for path in finding.paths}
    assert len(paths(look)) == len(set(paths(look)))
    assert names == set(paths(look)) | lost
    assert not set(paths(look)) & lost
    misnamed = {photo.path: photo.format for photo in look.photos if photo.path.lower().endswith(".jpg")}
    assert {"GIF", "PNG", "JPEG"} <= set(misnamed.values())
    wrong = {path for each in found(look, "suffix") for path in each}
    assert {path for path, format in misnamed.items() if format != "JPEG"} <= wrong
    assert {"RGBA", "P", "L"} & {photo.mode for photo in look.photos}
