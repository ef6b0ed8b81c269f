"""Claims about sets as people lay them out: which files are HR, and which LR."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from btsrn_jax.data import datasets, folders, layouts
from btsrn_jax.errors import InputError


def make(folder, *files, size=(8, 8)):
    """Writes small images; LR files get their size from the test where it matters."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    return folder


def found(folder, scale=2, **kwargs):
    """[(name, HR, LR)] of a set, files by their paths in it."""

    def inside(path):
        return path and path.relative_to(folder).as_posix()

    files = folders.find_set(folder, scale, **kwargs)
    return [(file.name, inside(file.hr), inside(file.lr)) for file in files]


def refused(*args, **kwargs):
    with pytest.raises(InputError) as error:
        folders.find_set(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


# HR and LR of one image at x2, as the sets in circulation have them.
PAIRS = [
    ("HR/a.png", "LR/a.png"),
    ("HR/a.png", "LQ/a.png"),
    ("GT/a.png", "LQ/a.png"),
    ("gt/a.png", "lq/a.png"),
    ("HQ/a.png", "LQ/a.png"),
    ("HRs/a.png", "LRs/a.png"),
    ("hr/a.png", "lr/a.png"),
    ("Hr/a.png", "Lr/X2/ax2.png"),
    ("HR/a.png", "LR/x2/a.png"),
    ("HR/a.png", "LR/2/a.png"),
    ("HR/a.png", "LR/2x/a.png"),
    ("HR/a.png", "x2/a.png"),
    ("HR/a.png", "LR_bicubic/X2/ax2.png"),
    ("HR/a.png", "LR_bicubic_X2/a.png"),
    ("HR/a.png", "LR_x2/a.png"),
    ("HR/a.png", "LRx2/a.png"),
    ("HR/a.png", "lr2/a.png"),
    ("HR/a.png", "LR_unknown/X2/ax2.png"),
    ("GTmod12/a.png", "LRbicx2/a.png"),
    ("GTmod24/a.png", "lrbicx2/a.png"),
    ("GT/a.png", "LR_bicubic/X2/a.png"),
    ("original/a.png", "LRBI/x2/a_LRBI_x2.png"),
    ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_unknown/X2/0801x2.png"),
    ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_mild/0801x2m.png"),
    ("Flickr2K_HR/0001.png", "Flickr2K_LR_bicubic/X2/0001x2.png"),
    ("DIV2K_train_HR_sub/0001_s001.png", "DIV2K_train_LR_bicubic/X2_sub/0001_s001.png"),
    ("test_HR/a.png", "test_LR/a.png"),
    ("trainH/a.png", "trainL/a.png"),
    ("H/a.png", "L/a.png"),
    ("high/a.png", "low/a.png"),
    ("target/a.png", "input/a.png"),
    ("Set5/a.png", "Set5_bicLRx2/a.png"),
    ("HR/a_HR.png", "LR/X2/a_LR.png"),
    ("HR/a.PNG", "X2/aX2.png"),
    ("HR/A.png", "LR/a.png"),
    ("HR/x2/a_HR_x2.png", "LR/LRBI/x2/a_LRBI_x2.png"),
    ("Canon_001_HR.png", "Canon_001_LR2.png"),
    ("a_HR.png", "a_LR.png"),
    ("a.png", "ax2.png"),
    ("a_GT.png", "a_LQ.png"),
    ("a_HQ.png", "a_LQ.png"),
    ("a/HR.png", "a/LR.png"),
    ("a/gt.png", "a/lq.png"),
    ("Image_SRF_2/a_SRF_2_HR.png", "Image_SRF_2/a_SRF_2_LR.png"),
    ("image_SRF_2/HR/a.png", "image_SRF_2/LR/a.png"),
    ("image_SRF_2/GT/a_SRF_2_HR.png", "image_SRF_2/LQ/a_SRF_2_LR.png"),
    ("a_SRF_2_HR.png", "a_SRF_2_LR.png"),
]


@pytest.mark.parametrize(("hr", "lr"), PAIRS)
def test_lr_that_is_there_is_taken(tmp_path, hr, lr):
    make(tmp_path, hr, lr)
    ((_, *pair),) = found(tmp_path)
    assert pair == [hr, lr]
    # In training the same function finds it: no LR image counts as HR.
    (trained,) = datasets.folder_pairs(tmp_path, None, 2)
    assert trained.files.lr == tmp_path / lr
    assert datasets.lr_origin([trained]) == str((tmp_path / lr).parent)


@pytest.mark.parametrize(
    "other",
    ["LR_bicubic/X4/ax4.png", "LRbicx3/a.png", "X4/a.png", "ax4.png", "HR/ax3.png"],
)
def test_lr_of_another_scale_is_neither_lr_nor_hr(tmp_path, other):
    hr = "a.png" if "/" not in other else "HR/a.png"
    make(tmp_path, hr, other)
    assert [pair[1:] for pair in found(tmp_path)] == [(hr, None)]


@pytest.mark.parametrize(
    "other", ["SR", "results", "bicubic", "Masks", "old", "HRx", "visualization"]
)
def test_images_beside_hr_that_are_not_understood_stop_the_command(tmp_path, other):
    make(tmp_path, "HR/a.png", f"{other}/a.png")
    text = refused(tmp_path, 2)
    assert f"{other}/ beside HR/" in text
    assert "--lr DIR" in text
    assert f"give {tmp_path}/HR itself" in text
    assert [pair[1:] for pair in found(tmp_path, lr_dir=tmp_path / other)] == [
        ("HR/a.png", f"{other}/a.png")
    ]
    assert folders.find_set(tmp_path / "HR", 2)[0].lr is None


def test_loose_images_beside_hr_and_results_beside_loose_images_stop_it(tmp_path):
    make(tmp_path / "a", "preview.png", "HR/a.png")
    assert "images without a folder beside HR/" in refused(tmp_path / "a", 2)
    make(tmp_path / "b", "a.png", "results/a.png")
    assert "results/ beside its images" in refused(tmp_path / "b", 2)
    make(tmp_path / "c", "a.png", "cats/b.png")
    assert len(found(tmp_path / "c")) == 2


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("LR_bicubic/X2", "LR_unknown/X2"),
        ("LR", "LQ"),
        ("LR/X2", "X2"),
        ("LR/bicubic/X2", "LR/unknown/X2"),
        ("LR", "LR_bicubic/X2"),
    ],
)
def test_several_lr_folders_are_both_named(tmp_path, one, two):
    make(tmp_path, "HR/a.png", f"{one}/a.png", f"{two}/a.png")
    text = refused(tmp_path, 2)
    assert "--lr DIR" in text
    assert f"{one} and {two}" in text or f"{two} and {one}" in text
    ((*_, lr),) = found(tmp_path, lr_dir=tmp_path / two)
    assert lr == f"{two}/a.png"


def test_of_two_bicubic_folders_the_first_is_taken(tmp_path):
    make(tmp_path, "HR/a.png", "LR_bicubic/X2/a.png", "LRbicx2/a.png")
    ((*_, lr),) = found(tmp_path)
    assert lr == "LR_bicubic/X2/a.png"


def test_of_div2ks_folder_each_split_takes_its_own(tmp_path):
    for part, name in (("train", "0001"), ("valid", "0801")):
        make(tmp_path, f"DIV2K_{part}_HR/{name}.png")
        make(tmp_path, f"DIV2K_{part}_LR_bicubic/X2/{name}x2.png")
    assert [name for name, *_ in found(tmp_path)] == ["0801"]
    assert [name for name, *_ in found(tmp_path, split="train")] == ["0001"]
    make(tmp_path / "two", "A_HR/a.png", "B_HR/b.png")
    assert "several folders of HR images, A_HR, B_HR" in refused(tmp_path / "two", 2)


@pytest.mark.parametrize("place", ["LR_bicubic/X2", "LR", "lrbicx2"])
@pytest.mark.parametrize("file", [None, "a.npy"])
def test_an_lr_folder_without_images_is_no_missing_one(tmp_path, place, file):
    """A download that failed, a disk that is not mounted, a format that is not read."""
    make(tmp_path, "HR/a.png")
    (tmp_path / place).mkdir(parents=True)
    if file:
        (tmp_path / place / file).touch()
    assert f"no images in {tmp_path / place}" in refused(tmp_path, 2)


def test_an_lr_folder_that_may_not_be_read_is_no_missing_one(
    permissions_count, tmp_path
):
    make(pathlib.Path("set"), "HR/a.png", "LR/a.png")
    pathlib.Path("set/LR").chmod(0)
    assert "LR: Permission denied" in refused(pathlib.Path("set"), 2)
    pathlib.Path("set/LR").chmod(0o700)


@pytest.mark.parametrize("inner", ["Set5/LR/a.png", "Set5/image_SRF_2/a_HR.png"])
def test_a_folder_of_sets_is_no_set(tmp_path, inner):
    make(tmp_path, "Set5/HR/a.png", inner)
    assert "is not one set" in refused(tmp_path, 2)
    assert f"in {tmp_path / 'Set5'}" in refused(tmp_path, 2)


def test_lr_given_may_be_flat_or_have_folders_of_scales(tmp_path):
    make(tmp_path, "set/HR/a.png", "flat/a.png", "low/X2/ax2.png", "low/X4/ax4.png")
    for place, lr in (("flat", "flat/a.png"), ("low", "low/X2/ax2.png")):
        (file,) = folders.find_set(tmp_path / "set", 2, lr_dir=tmp_path / place)
        assert file.lr == tmp_path / lr
    assert "none of x3" in refused(tmp_path / "set", 3, lr_dir=tmp_path / "low")
    assert "no such file or folder" in refused(
        tmp_path / "set", 3, lr_dir=tmp_path / "nowhere"
    )


@pytest.mark.parametrize(
    "hr", ["image_SRF_2/a_SRF_2_HR.png", "a_HR.png", "HR/a.png", "a.png"]
)
def test_lr_given_goes_before_lr_that_is_there(tmp_path, hr):
    here = {"HR/a.png": "LR/a.png", "a.png": "ax2.png"}.get(hr)
    here = here or hr.replace("_HR", "_LR")
    make(tmp_path / "set", hr, here)
    make(tmp_path, "low/a.png")
    (file,) = folders.find_set(tmp_path / "set", 2, lr_dir=tmp_path / "low")
    assert (file.hr, file.lr) == (tmp_path / "set" / hr, tmp_path / "low/a.png")


@pytest.mark.parametrize("times", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("large", "small"),
    [("sharp", "blur"), ("label", "data"), ("clean", "noisy"), ("x/a", "y/a")],
)
def test_smaller_copies_of_the_images_are_no_hr(tmp_path, large, small, times):
    """Folders of no known name, one of which can only be LR."""
    names = [f"{place}/{name}.png" for place in (small, large) for name in "ab"]
    make(tmp_path, *names, size=(8, 10))
    assert len(found(tmp_path)) == 4  # of one size: frames of a film, say
    make(tmp_path, *names[2:], size=(8 * times + 1, 10 * times))
    text = refused(tmp_path, 2)
    assert f"{times} times smaller" in text
    assert f"give {tmp_path / large} itself" in text
    assert len(found(tmp_path / small)) == 2
    make(tmp_path, names[3], size=(9, 9))  # so it was chance
    assert len(found(tmp_path)) == 4


def test_lr_given_inside_a_plain_set_is_not_hr(tmp_path):
    make(tmp_path, "a.png", "small/a.png")
    assert found(tmp_path, lr_dir=tmp_path / "small") == [("a", "a.png", "small/a.png")]


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("babyx2", ("baby", 2)),
        ("baby_LRx2", ("baby", 2)),
        ("Canon_001_LR2", ("canon_001", 2)),
        ("0801x4w1", ("0801", 4)),
        ("img_LQ", ("img", None)),
        ("img_001_SRF_4_LR", ("img_001_srf_4", 4)),
        ("color", None),
        ("x2", None),
    ],
)
def test_the_end_of_a_name_says_lr(name, rest):
    assert layouts.lr_end(name) == rest
