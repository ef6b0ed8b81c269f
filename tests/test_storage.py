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


def test_json_has_no_number_that_is_not_finite_and_of_old_files_none_is_read():
    value = {"a": [float("inf"), 1.5, (float("nan"), 2)], "b": {"c": -float("inf")}}
    text = storage.to_json(value)
    assert text == '{"a": [null, 1.5, [null, 2]], "b": {"c": null}}'
    assert storage.from_json('{"a": [Infinity, -Infinity, NaN, 1]}') == {
        "a": [None, None, None, 1]
    }
