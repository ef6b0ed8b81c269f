"""Claims about paths, on this machine and in buckets, that need no server."""

import importlib.util
import os
import pathlib

import pytest

from btsrn_jax import storage
from btsrn_jax.errors import InputError


@pytest.mark.parametrize("place", ["s3://bucket/x", "https://x/y"])
def test_other_stores_are_one_line(place):
    with pytest.raises(InputError, match=r"gs://BUCKET/FOLDER"):
        storage.path(place)


def test_without_gcsfs_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'btsrn-jax\[gcs\]'"):
        storage.path("gs://bucket/x")


def test_what_has_to_be_local_is_refused_in_a_bucket(tmp_path):
    with pytest.raises(InputError, match="a local path was expected"):
        storage.local("gs://bucket/photos")
    assert storage.local(str(tmp_path)) == tmp_path


def test_what_cannot_be_asked_for_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    assert storage.is_there(tmp_path / "file")
    assert not storage.is_there(tmp_path / "missing")
    assert not storage.is_there(tmp_path / "file" / "below")
    with pytest.raises(OSError, match="symbolic links"):
        storage.is_there(tmp_path / "circle" / "below")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    storage.write(path, "first")
    monkeypatch.setattr(type(path), "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        storage.write(path, "second")
    assert path.read_text() == "first"


def test_a_file_that_is_not_finished_leaves_the_old_one_and_nothing_else(tmp_path):
    storage.write(tmp_path / "file", b"first")

    def fails():
        with storage.replacing(tmp_path / "file") as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fails()
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_may_not_be_written_to_is_named(permissions_count):
    for name in (".", "new", "new/deep"):
        storage.check_writable_folder(pathlib.Path(name))
    pathlib.Path("file").touch()
    pathlib.Path("closed").mkdir(mode=0o500)
    for name in ("file", "closed", "closed/deep"):
        with pytest.raises(InputError, match=f"cannot write {name}: .*is no folder"):
            storage.check_writable_folder(pathlib.Path(name))
