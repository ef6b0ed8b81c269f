"""Claims about the walk through folders: what is an image, and what is left out."""

import os

import pytest

from btsrn_jax.errors import InputError
from btsrn_jax.images import files as images


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(folder):
    return [str(path.relative_to(folder)) for path in images.find_images(folder)]


@pytest.mark.parametrize(
    "place",
    [
        ".ipynb_checkpoints", ".thumbnails", ".git", ".AppleDouble", ".Trash-1000",
        ".Spotlight-V100", "@eaDir", "#recycle", "@Recycle", "__MACOSX",
        "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs",
    ],
)  # fmt: skip
def test_hidden_folders_and_thumbnails_are_left_out(tmp_path, place, caplog):
    touch(tmp_path, "a.png", f"{place}/a.png", f"sub/{place}/deep/b.png", "sub/b.png")
    assert names(tmp_path) == ["a.png", "sub/b.png"]
    assert "2 images; left out: 2 " in caplog.text
    assert place in caplog.text
    assert names(tmp_path / place) == ["a.png"]  # whoever names it means it


def test_one_line_counts_what_was_left_out_and_why(tmp_path, caplog):
    touch(tmp_path, "a.png", ".b.png", "._a.png", ".DS_Store", "notes.txt", "x.PSD")
    touch(tmp_path, "y.psd", "Makefile", ".cache/t.png")
    for _ in range(2):  # said once
        assert names(tmp_path) == ["a.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 1 image; left out: 3 hidden files, 1 hidden folder (.cache),"
        " 4 files of other kinds (.psd, .txt, Makefile)"
    ]
    touch(tmp_path / "clean", "a.png")
    caplog.clear()
    assert names(tmp_path / "clean") == ["a.png"]
    assert caplog.text == ""
    touch(tmp_path / "none", "a.psd", ".b.png")
    with pytest.raises(InputError, match=r"left out: 1 hidden file, 1 file of other"):
        names(tmp_path / "none")


@pytest.mark.parametrize(
    "suffix", [".jpe", ".jfif", ".jif", ".jfi", ".JPG", ".JPEG", ".pjpeg", ".TIF"]
)
def test_every_suffix_of_a_format_is_known(tmp_path, suffix):
    touch(tmp_path, f"a{suffix}")
    assert names(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize(
    "made",
    [
        ["config.json", "metrics.jsonl", "validation.png"],
        ["config.json", "checkpoints/8/x", "validation.png"],
        ["config.json", "model.safetensors", "sample.png"],
        ["index.html", "report.md", "figure5-1.png"],
    ],
)
def test_what_this_program_wrote_is_no_input(tmp_path, made, caplog):
    touch(tmp_path, "a.png", *(f"runs/mine/{name}" for name in made))
    assert names(tmp_path) == ["a.png"]
    assert "1 folder with a run, an export or a report (mine)" in caplog.text


def test_a_folder_of_outputs_is_marked_where_it_is_new(tmp_path):
    touch(tmp_path, "a.png", "own/b.png")
    for folder in ("out/x2/m", "own/c", "own"):
        images.mark_outputs(tmp_path / folder)
        touch(tmp_path, f"{folder}/z.png")
    assert names(tmp_path) == ["a.png", "own/b.png", "own/z.png"]
    assert names(tmp_path / "out") == ["x2/m/z.png"]


def test_an_empty_folder_is_marked_too_where_outputs_go_there(tmp_path):
    touch(tmp_path, "a.png")
    for place in ("out", "deep/x2"):
        (tmp_path / place).mkdir(parents=True)
        for _ in range(2):
            images.mark_outputs(tmp_path / place)
            touch(tmp_path, f"{place}/a.png")
    assert names(tmp_path) == ["a.png"]


def test_linked_folders_are_followed_once_and_never_in_a_circle(tmp_path, caplog):
    home = touch(tmp_path / "home", "b/one.png")
    touch(tmp_path / "far", "two.png", "deep/three.png")
    (home / "a").symlink_to(home / "b")
    (home / "c").symlink_to(tmp_path / "far")
    (home / "d").symlink_to(tmp_path / "far/deep")
    (home / "b/up").symlink_to(home)
    (home / "b/above").symlink_to(tmp_path)
    (tmp_path / "far/back").symlink_to(tmp_path / "far")
    (home / "e").symlink_to(home / "e")
    assert names(home) == ["b/one.png", "c/deep/three.png", "c/two.png"]
    assert "5 linked folders seen already (a, above, back, d, up)" in caplog.text


def test_a_broken_link_to_a_picture_is_not_passed_over(tmp_path):
    os.symlink(tmp_path / "gone", tmp_path / "a.png")
    assert names(tmp_path) == ["a.png"]
