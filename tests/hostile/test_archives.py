"""Archives that were made to do harm: each ends in one line, or in a finding, soon and in little memory."""

import gzip
import io
import struct
import tarfile
import zipfile

import pytest

from kerastk.datasets import archive as archives
from kerastk.datasets.archive import open_archive
from kerastk.errors import DataError, PhotoError
from kerastk.storage import cache_folder

PHOTO = b"no photo, but bytes"


def header(name, *, size=0, kind=tarfile.REGTYPE, number=None, at=124):
    """A block of a tar with a right checksum; `number` is written, as 12 bytes, where `at` says."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if number is not None:
        block[at : at + 12] = number
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def binary(number):
    """A number as tar has it where octal digits do not suffice."""
    return bytes([0o377 if number < 0 else 0o200]) + (number % 256**11).to_bytes(11, "big")


def padded(data):
    return data + bytes(-len(data) % 512)


def member(name, data=PHOTO):
    return header(name, size=len(data)) + padded(data)


def write(path, data):
    path.write_bytes(gzip.compress(data) if path.suffix in (".gz", ".tgz") else data)
    return path


def found(path):
    names, findings, read = open_archive(path)
    return {name: read(name) for name in names}, {(each.kind, each.paths[0]) for each in findings}


@pytest.fixture(params=["x.tar", "x.tar.gz"])
def tar(request, tmp_path):
    """Writes blocks as a tar, once plain and once compressed."""
    return lambda *parts: write(tmp_path / request.param, b"".join(parts) + bytes(1024))


@pytest.fixture
def small(monkeypatch):
    """Limits at which a bomb is quickly made."""
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)


def unpacked():
    return list(cache_folder().rglob("*"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_name_with_two_slashes_in_front_does_not_leave_the_cache(kind, tmp_path):
    # POSIX gives two leading slashes a meaning of their own, and pathlib keeps them.
    evil = f"/{tmp_path}/evil/1.jpg"
    assert evil.startswith("//")
    if kind == "zip":
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(evil, PHOTO)
            archive.writestr("cat/1.jpg", PHOTO)
    else:
        path = write(tmp_path / f"x.{kind}", member(evil) + member("cat/1.jpg") + bytes(1024))
    assert found(path) == ({"cat/1.jpg": PHOTO}, {("unsafe-path", evil)})
    assert not (tmp_path / "evil").exists()


def test_a_name_with_a_nul_is_set_aside(tmp_path):
    extension = b"18 path=a\0b/1.jpg\n" + bytes(494)
    extended = header("x", size=18, kind=tarfile.XHDTYPE) + extension + member("y")
    path = write(tmp_path / "x.tar.gz", extended + member("cat/1.jpg") + bytes(1024))
    assert found(path) == ({"cat/1.jpg": PHOTO}, {("unsafe-path", "a\0b/1.jpg")})


# Bombs.


def test_a_compressed_tar_that_swells_is_refused_and_leaves_nothing(small, refused, tmp_path):
    zeros = bytes(2**20)
    path = write(tmp_path / "x.tgz", b"".join(member(f"cat/{n}.bmp", zeros) for n in range(40)) + bytes(1024))
    assert path.stat().st_size < 2**18
    assert "unpacks to more than" in refused(open_archive, path, kind=DataError)
    assert [each for each in unpacked() if each.is_file()] == []


def test_what_is_set_aside_is_not_unpacked_for_ever(small, refused, tmp_path):
    # One file over the limit, which would only be skipped.
    path = write(tmp_path / "x.tgz", member("cat/1.bmp", bytes(40 * 2**20)) + member("cat/2.jpg") + bytes(1024))
    assert "unpacks to more than" in refused(open_archive, path, kind=DataError, megabytes=10)


def test_a_bomb_is_one_line_at_the_command_line(small, command, tmp_path):
    path = write(tmp_path / "x.tgz", member("cat/1.bmp", bytes(40 * 2**20)) + bytes(1024))
    assert "unpacks to more than" in command("check", path)
    assert [each for each in unpacked() if each.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("place", ["first", "second"])
def test_an_extension_of_a_header_is_not_read_in_one_piece(kind, place, tar, refused):
    long = header("x", size=8 * 2**20, kind=kind) + bytes(8 * 2**20)
    before = member("cat/1.jpg") if place == "second" else b""
    assert "a header of 8,388,608 bytes" in refused(open_archive, tar(before, long), kind=DataError, megabytes=4)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_extensions_of_extensions_are_one_line(kind, tar, refused):
    content = b"9 path=a\n" if kind == tarfile.XHDTYPE else b"a\0"
    chained = 5000 * (header("x", size=len(content), kind=kind) + padded(content))
    assert "cannot read the archive" in refused(open_archive, tar(chained, member("cat/1.jpg")), kind=DataError)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-512, -1024, -1536, -(2**60)])
def test_a_negative_size_does_not_hang(kind, size, tar, bounded):
    # CVE-2025-8194. Where Python is mended, the tar ends there.
    evil = header("cat/2.jpg", kind=kind, number=binary(size))
    listing, error = bounded(open_archive, tar(member("cat/1.jpg"), evil, member("cat/3.jpg")))
    assert isinstance(error, DataError) or listing[0] == ["cat/1.jpg"]


def test_a_size_beyond_all_numbers_is_one_line(tar, refused):
    evil = header("cat/1.jpg", number=binary(2**80))
    assert "x.tar" in refused(open_archive, tar(evil), kind=DataError)


def test_a_sparse_file_is_left_out(tar):
    # It says itself how many zeros it holds: a tebibyte.
    evil = header("cat/2.jpg", kind=tarfile.GNUTYPE_SPARSE, number=binary(2**40), at=483)
    assert found(tar(member("cat/1.jpg"), evil)) == ({"cat/1.jpg": PHOTO}, {("not-a-file", "cat/2.jpg")})


def test_a_zip_that_swells_is_refused(small, refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"cat/{number}.bmp", bytes(2**20))
    assert "unpacks to more than" in refused(open_archive, tmp_path / "x.zip", kind=DataError)


def directory(path):
    """The bytes of a zip, where its directory begins, and where it ends."""
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x05\x06")
    size, start = struct.unpack("<LL", data[end + 12 : end + 20])
    return data, start, start + size


def test_a_zip_whose_members_overlap_is_refused(small, refused, tmp_path):
    # https://www.bamsoftware.com/hacks/zipbomb/: many entries of the directory, one and the same data.
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/0000.bmp", bytes(2**20))
    data, start, end = directory(path)
    entries = [data[start:end].replace(b"cat/0000", b"cat/%04d" % number) for number in range(200)]
    tail = data[end:]
    tail[8:16] = struct.pack("<HHL", 200, 200, sum(map(len, entries)))
    path.write_bytes(data[:start] + b"".join(entries) + tail)
    assert len(zipfile.ZipFile(path).namelist()) == 200
    assert "unpacks to more than" in refused(open_archive, path, kind=DataError)


def test_a_member_of_a_zip_that_is_larger_than_it_says_is_damaged(refused, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", bytes(64 * 2**20))
    data, start, _ = directory(path)
    data[start + 24 : start + 28] = struct.pack("<L", 100)
    path.write_bytes(data)
    _, _, read = open_archive(path)
    assert "cannot be read from the archive" in refused(read, "cat/1.jpg", kind=PhotoError, megabytes=2)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_a_zip_that_are_packed_otherwise_are_left_out(method, tmp_path):
    # zipfile unpacks a whole piece of them at once: 45 bytes of bzip2 are a megabyte.
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("cat/1.jpg", PHOTO)
        archive.writestr("cat/2.jpg", PHOTO, compress_type=method)
    assert found(tmp_path / "x.zip") == ({"cat/1.jpg": PHOTO}, {("unreadable", "cat/2.jpg")})


def test_an_archive_in_an_archive_is_a_file_like_any_other(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("cat/inner.jpg", PHOTO)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("cat/more.zip", inner.getvalue())
    assert open_archive(tmp_path / "x.zip")[0] == ["cat/more.zip"]
    write(tmp_path / "x.tgz", member("cat/more.zip", inner.getvalue()) + bytes(1024))
    assert open_archive(tmp_path / "x.tgz")[0] == ["cat/more.zip"]


# Headers that make zipfile and tarfile raise what nobody expects.


def test_a_zip_of_a_later_version_is_one_line(refused, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.jpg", PHOTO)
    data, start, _ = directory(path)
    data[start + 6] = 99
    path.write_bytes(data)
    assert "cannot read the archive" in refused(open_archive, path, kind=DataError)


def test_a_file_in_the_place_of_a_folder_is_one_line(refused, tmp_path):
    path = write(tmp_path / "x.tgz", member("cat") + member("cat/1.jpg") + bytes(1024))
    assert "cannot read the archive" in refused(open_archive, path, kind=DataError)
    assert [each for each in unpacked() if each.is_file()] == []


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"])
def test_what_only_begins_like_an_archive_is_one_line(start, refused, tmp_path):
    (tmp_path / "x.tgz").write_bytes(start + bytes(100))
    assert "x.tgz" in refused(open_archive, tmp_path / "x.tgz", kind=DataError)
