import os

import pytest

from kerastk.storage import atomic_path, atomic_writer, cache_folder, clear_temporary, write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "log.csv"
    write_atomic(path, "old")

    def fail():
        with atomic_writer(path) as file:
            file.write("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["log.csv"]


def test_the_name_appears_only_when_the_content_is_whole(tmp_path):
    with atomic_path(tmp_path / "a.keras") as temporary:
        temporary.write_bytes(b"1234")
        assert not (tmp_path / "a.keras").exists()
        assert temporary.suffix == ".keras"
    assert (tmp_path / "a.keras").read_bytes() == b"1234"


def test_a_block_that_writes_nothing_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in ("log.csv", ".hidden", ".0123456789abcdef0.json", ".0123456789ABCDEF.json", "0123456789abcdef.json"):
        (tmp_path / name).write_text("")
    kept = set(os.listdir(tmp_path))
    (tmp_path / ".0123456789abcdef.json").write_text("")
    (tmp_path / ".fedcba9876543210").mkdir()
    (tmp_path / ".fedcba9876543210" / "arrays.npz").write_text("")
    clear_temporary(tmp_path)
    assert set(os.listdir(tmp_path)) == kept


def test_odd_names_survive_in_text(tmp_path):
    name = os.fsdecode(b"caf\xe9\n.jpg")
    write_atomic(tmp_path / "names", name)
    assert (tmp_path / "names").read_bytes() == b"caf\xe9\n.jpg"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c"
    monkeypatch.delenv("KERASTK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "kerastk"
