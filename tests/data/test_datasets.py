"""Claims about sets of images: which, in what pairs, and what is wrong with them."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from btsrn_jax import config as schema
from btsrn_jax import machine
from btsrn_jax.data import datasets, loading, set_naming
from btsrn_jax.data.pairs import Pair, smaller_copy
from btsrn_jax.errors import InputError
from btsrn_jax.resize import imresize

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".PNG")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))


def photo(h, w, seed=0, channels=3):
    """Returns an image of noise; `channels` 0 means grey, (h, w)."""
    rng = np.random.default_rng(seed)
    shape = (h, w, channels) if channels else (h, w)
    return rng.integers(0, 256, shape, np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def names(pairs):
    return [pair.name for pair in pairs]


def message(function, *args):
    def run():
        result = function(*args)
        return result if isinstance(result, list) else list(result)  # a generator's

    with pytest.raises(InputError) as error:
        run()
    return str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_found_in_nested_folders(tmp_path, suffix):
    image = photo(9, 7)
    save(tmp_path / "hr/b" / f"two{suffix}", image)
    save(tmp_path / "hr" / f"one{suffix}", image)
    (tmp_path / "hr/notes.txt").write_text("no image")
    pairs = datasets.folder_pairs(tmp_path / "hr", None, 2)
    assert names(pairs) == ["b/two", "one"]
    lr, hr = pairs[0].load()
    assert lr is None
    assert hr.shape == (9, 7, 3)
    if suffix.lower() in (".png", ".bmp", ".tif", ".tiff"):
        np.testing.assert_array_equal(hr, image)


@pytest.mark.parametrize(
    "lr_name", ["a/0001.png", "a/0001x4.png", "X4/0001x4.png", "0001.bmp"]
)
def test_lr_is_paired_by_name(tmp_path, lr_name):
    save(tmp_path / "hr/a/0001.png", photo(16, 24))
    low = photo(4, 6, seed=1)
    save(tmp_path / "lr" / lr_name, low)
    (pair,) = datasets.folder_pairs(tmp_path / "hr", tmp_path / "lr", 4)
    assert pair.name == "a/0001"
    np.testing.assert_array_equal(pair.load()[0], low)


def test_missing_partners_and_duplicates_are_named_together(tmp_path):
    for name in ("one.png", "two.png", "two.bmp", "three.png"):
        save(tmp_path / "hr" / name, photo(8, 8))
    for name in ("a/three.png", "b/three.png", "onex3.png"):
        save(tmp_path / "lr" / name, photo(4, 4))
    text = message(datasets.folder_pairs, tmp_path / "hr", tmp_path / "lr", 2)
    lines = text.splitlines()
    assert len(lines) == 4
    assert "two.png: the same name as" in lines[0]
    for name in ("one", "three", "two"):
        assert f"{name}.png: no LR image {name} or {name}x2 in" in text


def test_what_is_wrong_in_a_set_is_handed_over_with_the_rest(tmp_path):
    for name in ("one", "two", "three"):
        save(tmp_path / f"HR/{name}.png", photo(8, 8))
    for name in ("one", "three"):
        save(tmp_path / f"X2/{name}.png", photo(4, 4))
    problems = []
    pairs = datasets.evaluation_set(str(tmp_path), 2, problems=problems)
    assert names(pairs) == ["one", "three"]
    assert len(problems) == 1
    assert "two.png: no LR image two" in problems[0]


def test_lr_is_never_taken_for_hr(tmp_path):
    save(tmp_path / "one.png", photo(8, 8))
    save(tmp_path / "LR_bicubic/X2/onex2.png", photo(4, 4))
    text = message(datasets.evaluation_set, str(tmp_path), 2)
    assert "has LR_bicubic/X2 for LR, but none of HR, " in text


def test_a_set_that_may_not_be_read_is_named(permissions_count, tmp_path):
    save(pathlib.Path("set/one.png"), photo(8, 8))
    pathlib.Path("set").chmod(0)
    text = message(datasets.evaluation_set, "set", 2)
    pathlib.Path("set").chmod(0o700)
    assert text == "cannot read folder set: Permission denied"


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_images_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    text = message(datasets.folder_pairs, tmp_path / folder, None, 2)
    assert folder in text
    assert "\n" not in text


def damaged(folder):
    """Returns pairs of which one is whole, and each of the others has another fault."""
    save(folder / "hr/whole.png", photo(32, 32))
    save(folder / "lr/whole.png", photo(16, 16))
    for name in ("truncated", "text", "mismatched", "small"):
        save(folder / f"lr/{name}.png", photo(16, 16))
    cut = save(folder / "hr/truncated.png", photo(32, 32))
    cut.write_bytes(cut.read_bytes()[:-700])
    (folder / "hr/text.png").write_text("this is no image")
    save(folder / "hr/mismatched.png", photo(36, 32))
    save(folder / "hr/small.png", photo(10, 40))
    save(folder / "lr/small.png", photo(5, 20))
    return datasets.folder_pairs(folder / "hr", folder / "lr", 2)


def test_training_names_every_offender_before_the_first_step(tmp_path):
    pairs = damaged(tmp_path)
    text = message(loading.load_training, pairs, 2, 24)
    lines = text.splitlines()
    assert len(lines) == 4
    for line, part in zip(
        lines,
        ("mismatched", "small", "text", "truncated"),
        strict=True,
    ):
        assert f"{part}.png" in line
    assert "LR of 16x16 and HR of 32x36 do not fit at x2" in lines[0]
    assert "40x10 is smaller than a patch of 24" in lines[1]


def test_evaluation_names_every_offender_before_anything_is_computed(tmp_path):
    text = message(datasets.check_set, damaged(tmp_path), 2, 8)
    lines = text.splitlines()
    assert len(lines) == 4
    assert "too small at x2" in lines[1]


def test_many_offenders_are_counted(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02d}.png").write_text("no")
    text = message(datasets.check_set, datasets.folder_pairs(tmp_path, None, 2), 2)
    assert text.splitlines()[-1] == "... and 10 more"


def test_what_was_done_on_reading_is_said(tmp_path):
    save(tmp_path / "plain.png", photo(8, 8))
    save(tmp_path / "grey.png", photo(8, 8, channels=0))
    save(tmp_path / "clear.png", photo(8, 8, channels=4))
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    save(tmp_path / "deep.png", deep)
    said = datasets.check_set(datasets.folder_pairs(tmp_path, None, 2), 2)
    assert sorted(said) == [
        "16-bit reduced to 8-bit: deep",
        "alpha dropped: clear",
        "grey: deep, grey",
    ]


def test_lr_made_from_hr_is_imresizes_and_is_kept(tmp_path):
    hr = photo(33, 26)
    save(tmp_path / "hr/one.png", hr)
    pairs = datasets.folder_pairs(tmp_path / "hr", None, 4)
    expected = imresize(hr[:32, :24], 1 / 4)
    for _ in range(2):  # made, then from the cache
        ((lr, cut),) = loading.load_training(pairs, 4, 8)
        np.testing.assert_array_equal(lr, expected)
        np.testing.assert_array_equal(cut, hr[:32, :24])
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    np.testing.assert_array_equal(np.load(kept), expected)

    # It is really read: another value in the file comes back.
    np.save(kept, expected ^ 1)
    ((lr, _),) = loading.load_training(pairs, 4, 8)
    np.testing.assert_array_equal(lr, expected ^ 1)
    # A damaged file is made anew; other pixels have another name.
    kept.write_bytes(kept.read_bytes()[:100])
    ((lr, _),) = loading.load_training(pairs, 4, 8)
    np.testing.assert_array_equal(lr, expected)
    save(tmp_path / "hr/one.png", 255 - hr)
    ((lr, _),) = loading.load_training(pairs, 4, 8)
    np.testing.assert_array_equal(lr, imresize(255 - hr[:32, :24], 1 / 4))


def copies(folder, *shares, patch=8):
    """Returns the config of a folder with smaller copies of its images at x2."""
    config = schema.defaults()
    config.scale, config.train.patch = 2, patch
    config.data.source, config.data.hr_dir = "folder", str(folder)
    config.data.smaller_copies = shares
    return config


def test_smaller_copies_are_imresizes_and_come_after_the_images(tmp_path):
    one, grey = photo(40, 60), photo(30, 20, seed=1, channels=0)
    save(tmp_path / "one.png", one)
    save(tmp_path / "two.png", grey)
    pairs = datasets.training_pairs(copies(tmp_path, 0.75, 0.5))
    assert len(set(names(pairs))) == 6
    made = list(loading.load_training(pairs, 2, 8))
    sizes = [hr.shape[:2] for _, hr in made]
    assert sizes == [(40, 60), (30, 20), (30, 44), (22, 14), (20, 30), (14, 10)]
    expected = imresize(one, 0.75)[:, :44]  # 45, of which two LR pixels make 44
    np.testing.assert_array_equal(made[2][1], expected)
    np.testing.assert_array_equal(made[2][0], imresize(expected, 0.5))
    np.testing.assert_array_equal(made[3][1][..., 0], imresize(grey, 0.75)[:22, :14])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_smaller_copy_is_no_smaller_than_a_patch(tmp_path, scale):
    patch = 12 * scale
    for i, size in enumerate([(50, 97), (97, 53), (patch, 60), (patch + 1, patch + 1)]):
        save(tmp_path / f"{i}.png", photo(*size))
    config = copies(tmp_path, 0.3, patch=patch)
    config.scale = scale
    made = list(loading.load_training(datasets.training_pairs(config), scale, patch))
    assert [min(hr.shape[:2]) for _, hr in made[4:]] == 4 * [patch]


def test_smaller_copies_of_records_that_are_no_files():
    record = Pair("0001", lambda: (photo(10, 15), photo(20, 30)))
    copy = smaller_copy(record, 0.5, 8)
    lr, hr = copy.load()
    assert (lr, hr.shape, copy.files) == (None, (10, 15, 3), None)


def test_an_image_at_fault_is_named_once_whatever_copies_there_are(tmp_path):
    save(tmp_path / "small.png", photo(10, 40))
    (tmp_path / "text.png").write_text("this is no image")
    pairs = datasets.training_pairs(copies(tmp_path, 0.75, 0.5, patch=24))
    lines = message(loading.load_training, pairs, 2, 24).splitlines()
    assert [("small.png" in x, "text.png" in x) for x in lines] == [
        (True, False),
        (False, True),
    ]


def test_smaller_copies_are_refused_where_images_have_lr(tmp_path):
    save(tmp_path / "HR/one.png", photo(16, 16))
    save(tmp_path / "LR/one.png", photo(8, 8))
    text = message(datasets.training_pairs, copies(tmp_path, 0.5))
    assert text.startswith("config.data.smaller_copies needs LR images as imresize")
    assert str(tmp_path / "LR/one.png") in text


def test_grey_images_train_as_three_equal_channels(tmp_path):
    save(tmp_path / "grey.png", photo(16, 16, channels=0))
    ((lr, hr),) = loading.load_training(datasets.folder_pairs(tmp_path, None, 2), 2, 8)
    assert lr.shape == (8, 8, 3)
    assert (hr[..., 0] == hr[..., 2]).all()


# Benchmark sets as people have them: files, and the pairs that they mean at x2.
LAYOUTS = {
    "edsr": (
        ["HR/baby.png", "LR_bicubic/X2/babyx2.png", "LR_bicubic/X4/babyx4.png"],
        ("HR/baby.png", "LR_bicubic/X2/babyx2.png"),
    ),
    "reference": (["HR/baby.png", "X2/babyx2.png"], ("HR/baby.png", "X2/babyx2.png")),
    "srf": (
        [
            "image_SRF_2/baby_SRF_2_HR.png",
            "image_SRF_2/baby_SRF_2_LR.png",
            "image_SRF_2/baby_SRF_2_glasner.png",
            "image_SRF_4/baby_SRF_4_HR.png",
        ],
        ("image_SRF_2/baby_SRF_2_HR.png", "image_SRF_2/baby_SRF_2_LR.png"),
    ),
    "swinir": (
        ["GTmod12/baby.png", "original/baby.png", "LRbicx2/baby.png"],
        ("GTmod12/baby.png", "LRbicx2/baby.png"),
    ),
    "swinir without LR": (
        ["GTmod12/baby.png", "original/baby.png", "LRbicx3/baby.png"],
        ("original/baby.png", None),
    ),
    "div2k": (
        ["DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X2/0801x2.png"],
        ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X2/0801x2.png"),
    ),
    "hr alone": (["baby.png"], ("baby.png", None)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_benchmark_sets_are_understood_as_people_have_them(tmp_path, layout):
    files, (hr, lr) = LAYOUTS[layout]
    for file in files:
        save(tmp_path / file, photo(8, 8))
    (pair,) = datasets.evaluation_set(str(tmp_path), 2)
    assert pair.name in ("baby", "0801")
    assert pair.files.hr == tmp_path / hr
    assert pair.files.lr == (None if lr is None else tmp_path / lr)
    said = datasets.origin([pair])
    assert str((tmp_path / hr).parent) in said
    assert (lr is None) == ("LR made by imresize" in said)


def test_srf_folders_of_another_scale_are_named(tmp_path):
    save(tmp_path / "image_SRF_2/baby_SRF_2_HR.png", photo(8, 8))
    text = message(datasets.evaluation_set, str(tmp_path), 3)
    assert "image_SRF_3" in text


def test_the_samples_are_photographs_none_of_which_is_in_both_halves():
    config = schema.defaults()
    config.scale, config.data.source = 2, "samples"
    training = datasets.training_pairs(config)
    held_out = datasets.evaluation_sets(config)
    assert list(held_out) == ["samples"]
    assert len(held_out["samples"]) >= 2
    assert not set(names(training)) & set(names(held_out["samples"]))
    loaded = list(loading.load_training(training, 2, 72))
    assert len(loaded) == len(training)
    for lr, hr in loaded:
        assert hr.shape == (2 * lr.shape[0], 2 * lr.shape[1], 3)


def test_sets_are_named_by_their_folder(tmp_path):
    given = [f"{tmp_path}/Set5/", "div2k/bicubic_x2", "samples"]
    assert set_naming.set_names(given) == ["Set5", "div2k/bicubic_x2", "samples"]
    assert "scale 4" in message(datasets.evaluation_set, "div2k/bicubic_x2", 4)
    assert pathlib.Path(machine.cache_dir()) == tmp_path / "cache"


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    """An empty variable says nothing; ~ is the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    monkeypatch.setenv("BTSRN_CACHE", "~/mine")
    assert machine.cache_dir() == tmp_path / "home/mine"
    monkeypatch.setenv("BTSRN_CACHE", "")
    assert machine.cache_dir() == tmp_path / "home/xdg/btsrn"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert machine.cache_dir() == tmp_path / "home/.cache/btsrn"
    monkeypatch.setenv("BTSRN_CACHE", "~no-such-user/x")
    assert "no home directory ~no-such-user" in message(machine.cache_dir)
