"""Claims about the names of sets: one for each, and none for two."""

import pytest

from btsrn_jax.data import datasets, set_naming
from btsrn_jax.errors import InputError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_sets_whose_folders_have_one_name_get_two(tmp_path):
    given = ["Set5/HR", "Set14/HR/", f"{tmp_path}/B100"]
    assert set_naming.set_names(given) == ["Set5/HR", "Set14/HR", "B100"]
    given = ["a/Set5/HR", "b/Set5/HR", "HR"]
    names = [*given[:2], f"{tmp_path.name}/HR"]
    assert set_naming.set_names(given) == names
    assert set_naming.set_names(["x/samples", "samples"])[1] == "samples"


@pytest.mark.parametrize(
    "given", [["a/b", "a/./b/"], ["samples", "samples"], ["a", "../{here}/a"]]
)
def test_one_set_given_twice_is_refused(given, tmp_path):
    given = [name.format(here=tmp_path.name) for name in given]
    with pytest.raises(InputError, match="is given twice"):
        set_naming.set_names(given)


def test_an_empty_name_is_refused():
    with pytest.raises(InputError, match="empty name"):
        set_naming.set_names(["a", ""])


def test_a_linked_set_is_called_by_its_link(tmp_path):
    (tmp_path / "a81f").mkdir()
    (tmp_path / "Set5").symlink_to(tmp_path / "a81f")
    assert set_naming.set_names(["Set5"]) == ["Set5"]
    assert set_naming.set_names(["Set5", "a81f"]) == ["Set5", "a81f"]


@pytest.mark.parametrize("name", ["samples", "div2k/bicubic_x2"])
def test_a_folder_with_a_reserved_name_is_not_shadowed(tmp_path, name):
    assert set_naming.set_names([name]) == [name]
    (tmp_path / name).mkdir(parents=True)
    for function in (set_naming.set_names, lambda x: datasets.evaluation_set(x[0], 2)):
        with pytest.raises(InputError, match=rf"write \./{name} for the folder"):
            function([name])
    last = name.rpartition("/")[2]
    assert set_naming.set_names([f"./{name}"]) == [last]
    with pytest.raises(InputError, match="no images in"):
        datasets.evaluation_set(f"./{name}", 2)


def test_a_folder_below_div2k_is_a_folder(tmp_path):
    (tmp_path / "div2k/valid").mkdir(parents=True)
    assert set_naming.set_names(["div2k/valid"]) == ["valid"]
    with pytest.raises(InputError, match="no images in"):
        datasets.evaluation_set("div2k/valid", 2)


def test_div2k_as_prepared_here_is_itself(tmp_path):
    (tmp_path / "div2k/bicubic_x2").mkdir(parents=True)
    assert set_naming.set_names(["div2k/bicubic_x2"], ".") == ["div2k/bicubic_x2"]
