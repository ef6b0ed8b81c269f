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


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory, beside the folder that the process works in."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.mark.parametrize("function", [storage.path, storage.local])
def test_a_tilde_is_the_home_directory_and_is_expanded_once(home, function):
    assert function("~") == home
    assert function("~/a b/~") == home / "a b" / "~"
    assert function("a/~") == pathlib.Path("a/~")
    own = function("./~/x")
    assert own == home.parent / "work" / "~" / "x"
    assert function(str(own)) == own  # whoever passes it on as a text


def test_a_home_that_is_not_known_is_one_line_and_a_file_of_that_name_is_taken(home):
    with pytest.raises(InputError, match=r"^~no-such-user/x: no home directory") as e:
        storage.local("~no-such-user/x")
    assert "./~no-such-user/x" in str(e.value)
    pathlib.Path("~draft.png").touch()
    assert storage.local("~draft.png").samefile("~draft.png")


def test_without_home_and_passwd_entry_a_tilde_is_refused(monkeypatch, tmp_path):
    if os.geteuid():
        pytest.skip("only root can become a user without an entry")
    monkeypatch.delenv("HOME")
    monkeypatch.chdir(tmp_path)
    pathlib.Path("~").mkdir()  # is no home
    os.setresuid(54321, 54321, 0)
    try:
        for text in ("~", "~/x"):
            with pytest.raises(InputError, match="no home directory ~ is known"):
                storage.expand(text)
        assert storage.expand("./~") == "./~"
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        ("a, b ,\tc", ["a", "b", "c"]),
        (" My Set , ", ["My Set"]),
        ("", []),
        ("row,small, bicubic", ["row,small", "bicubic"]),
        ("row, small", ["row", "small"]),
        ("one, two,a", ["one, two", "a"]),
        (" led,a", [" led", "a"]),
        ("./~, gs://b/c", ["./~", "gs://b/c"]),
    ],
)
def test_a_list_of_names_is_split_at_commas_that_no_folder_has(home, text, names):
    for folder in ("row", "row,small", "one, two", " led"):
        pathlib.Path(folder).mkdir()
    assert storage.split_names(text) == names


def test_names_in_a_list_have_the_home_directory_too(home):
    (home / "x,y").mkdir()
    found = storage.split_names("~/a, ~/x,y,~")
    assert found == [f"{home}/a", f"{home}/x,y", str(home)]


@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("photoss", "photos"),
        ("photoss/cat.png", "photos/cat.png"),
        ("photoss/dog.png", "photos"),
        ("photos/cats.png", "photos/cat.png"),
        ("nothing", None),
        ("photos/cat.png/x", "photos/cat.png"),
    ],
)
def test_of_what_is_missing_the_nearest_name_is_suggested(home, place, near):
    pathlib.Path("photos").mkdir()
    pathlib.Path("photos/cat.png").touch()
    hint = f"; did you mean {near}?" if near else ""
    assert storage.missing(place) == f"no such file or folder: {place}{hint}"


def test_a_link_to_nothing_is_called_so(tmp_path):
    link = tmp_path / "a.png"
    link.symlink_to("gone/a.png")
    text = f"{link} is a link to gone/a.png, which is not there"
    assert storage.missing(link) == text


def test_what_may_not_be_seen_is_not_called_missing(permissions_count):
    pathlib.Path("closed").mkdir(mode=0)
    message = "cannot find closed/x: Permission denied"
    assert storage.missing("closed/x") == message


def test_json_has_no_number_that_is_not_finite_and_of_old_files_none_is_read():
    value = {"a": [float("inf"), 1.5, (float("nan"), 2)], "b": {"c": -float("inf")}}
    text = storage.to_json(value)
    assert text == '{"a": [null, 1.5, [null, 2]], "b": {"c": null}}'
    assert storage.from_json('{"a": [Infinity, -Infinity, NaN, 1]}') == {
        "a": [None, None, None, 1]
    }
