"""Claims about DIV2K, on archives of a few small images in its own layout."""

import concurrent.futures
import hashlib
import json
import pathlib
import re
import resource
import sys
import zipfile

import numpy as np
import pytest
from helpers.div2k_zips import (
    CONFIG,
    NUMBERS,
    make_archives,
    picture,
)

from btsrn_jax.data import div2k
from btsrn_jax.errors import Failure, InputError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def zips(tmp_path):
    return tmp_path / "zips"


@pytest.fixture
def sources(zips):
    return make_archives(zips, CONFIG)


@pytest.fixture
def prepared(tmp_path, zips, sources):
    div2k.prepare(CONFIG, tmp_path / "data", zips, sources=sources)
    return tmp_path / "data"


def shards(data_dir: pathlib.Path) -> dict[str, bytes]:
    folder = data_dir / "div2k" / CONFIG / div2k.VERSION
    return {p.name: p.read_bytes() for p in folder.glob("*.array_record*")}


def info(data_dir: pathlib.Path) -> dict:
    folder = data_dir / "div2k" / CONFIG / div2k.VERSION
    return json.loads((folder / "dataset_info.json").read_bytes())


def stock_way(data_dir: pathlib.Path, zips: pathlib.Path, sources) -> None:
    """Prepares with TFDS's own sorting and writing.

    Up to 1 GB these need no TensorFlow. Only the walk through extracted folders, which
    does, is replaced.
    """
    stock = tfds.builder_cls("div2k")

    class Builder(stock, skip_registration=True):
        __module__ = stock.__module__
        name = stock.name

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in NUMBERS}

        def _generate_examples(self, split):
            lr = zipfile.ZipFile(zips / sources[f"{split}_lr"].name)
            hr = zipfile.ZipFile(zips / sources[f"{split}_hr"].name)
            with lr, hr:
                for path in filter(lambda p: p.endswith(".png"), lr.namelist()):
                    file = path.rpartition("/")[2]
                    hr_path = f"DIV2K_{split[:5]}_HR/{file[:4]}.png"
                    images = {"lr": lr.open(path), "hr": hr.open(hr_path)}
                    yield file, images

    builder = Builder(config=CONFIG, data_dir=data_dir)
    builder.download_and_prepare(file_format="array_record")


def test_version_and_configs_are_those_of_the_stock_builder():
    stock = tfds.builder_cls("div2k")
    for config in div2k.CONFIGS:
        assert str(stock.builder_configs[config].version) == div2k.VERSION


def test_the_real_archives_have_the_sizes_of_the_checksums_file():
    parts = div2k.archives("unknown_x2")
    assert list(parts) == ["train_lr", "train_hr", "validation_lr", "validation_hr"]
    assert parts["train_lr"].name == "DIV2K_train_LR_unknown_X2.zip"
    assert parts["validation_hr"].name == "DIV2K_valid_HR.zip"
    assert parts["validation_hr"].size == 448_993_893
    total = 734_182_735 + 3_530_603_713 + 93_433_041 + 448_993_893
    assert div2k.sizes("unknown_x2") == (total, total)


@pytest.mark.parametrize("split", div2k.SPLITS)
def test_pairs_have_the_pixels_of_the_archives_under_their_numbers(prepared, split):
    numbers = [n for part in split.split("+") for n in NUMBERS[part]]
    pairs = div2k.pairs(CONFIG, split, prepared)
    assert [name for name, _ in pairs] == [f"{n:04d}" for n in numbers]
    for number, (_, load) in zip(numbers, pairs, strict=True):
        lr, hr = load()
        assert lr.dtype == hr.dtype == np.uint8
        np.testing.assert_array_equal(lr, picture(number, "lr"))
        np.testing.assert_array_equal(hr, picture(number, "hr"))


@pytest.mark.parametrize("name", ["data [2026]", "a**b", "50% #1:2", "a\nb"])
def test_no_character_of_a_folder_is_taken_for_a_pattern(tmp_path, zips, sources, name):
    there = zips.rename(tmp_path / "zips [1]")
    div2k.prepare(CONFIG, tmp_path / name, there, sources=sources)
    (lr, _), *_ = (load() for _, load in div2k.pairs(CONFIG, "train", tmp_path / name))
    np.testing.assert_array_equal(lr, picture(1, "lr"))


def test_unknown_is_prepared_beside_bicubic(prepared, zips):
    sources = make_archives(zips, "unknown_x3")
    div2k.prepare("unknown_x3", prepared, zips, sources=sources)
    for config in (CONFIG, "unknown_x3"):
        assert len(div2k.pairs(config, "train+validation", prepared)) == 10
    assert not div2k.is_prepared("unknown_x4", prepared)


@pytest.mark.parametrize("count", [1, 4])
def test_files_are_byte_for_byte_those_of_the_stock_builder(
    tmp_path, zips, sources, monkeypatch, count
):
    number = lambda *args, **kwargs: min(count, 3)  # noqa: E731
    config = type(tfds.download.DownloadConfig().get_shard_config())
    monkeypatch.setattr(config, "get_number_shards", number)
    div2k.prepare(CONFIG, tmp_path / "ours", zips, sources=sources)
    stock_way(tmp_path / "stock", zips, sources)
    ours = shards(tmp_path / "ours")
    assert len(ours) == 2 * min(count, 3)
    assert ours == shards(tmp_path / "stock")
    assert info(tmp_path / "ours") == info(tmp_path / "stock")
    names = [n for n, _ in div2k.pairs(CONFIG, "train+validation", tmp_path / "ours")]
    assert names == [f"{n:04d}" for part in NUMBERS.values() for n in part]


def test_the_stock_builder_opens_it_without_tensorflow(prepared):
    builder = tfds.builder(f"div2k/{CONFIG}", data_dir=prepared)
    assert builder.is_prepared()
    assert builder.info.splits["validation"].num_examples == 3
    source = tfds.data_source(f"div2k/{CONFIG}", data_dir=prepared, split="train")
    theirs = {example["hr"].tobytes() for example in source}
    assert theirs == {picture(n, "hr").tobytes() for n in NUMBERS["train"]}
    assert "tensorflow" not in sys.modules


def test_many_threads_load_the_same_pixels(prepared):
    pairs = div2k.pairs(CONFIG, "train", prepared) * 20
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda pair: (pair[0], pair[1]()), pairs))
    for name, (_, hr) in loaded:
        np.testing.assert_array_equal(hr, picture(int(name), "hr"))


def test_a_second_prepare_does_nothing_and_says_so(prepared, zips, capsys):
    before = {p: p.stat().st_mtime_ns for p in prepared.rglob("*")}
    for path in zips.iterdir():
        path.unlink()
    capsys.readouterr()
    div2k.prepare(CONFIG, prepared, zips)  # of the real DIV2K, even
    assert "prepared already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in prepared.rglob("*")} == before


def test_a_zip_with_one_flipped_byte_is_refused_by_name(tmp_path, zips, sources):
    path = zips / "DIV2K_valid_LR_bicubic_X4.zip"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        div2k.prepare(CONFIG, tmp_path / "data", zips, sources=sources)
    assert sources["validation_lr"].sha256 in str(error.value)
    assert f"found SHA-256 {hashlib.sha256(data).hexdigest()}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not div2k.is_prepared(CONFIG, tmp_path / "data")


def test_a_zip_of_the_wrong_size_is_refused_with_both_sizes(tmp_path, zips, sources):
    path = zips / "DIV2K_train_HR.zip"
    path.write_bytes(path.read_bytes()[:-7])
    size = sources["train_hr"].size
    message = rf"{path} .*expected {size:,} bytes .* found {size - 7:,}"
    with pytest.raises(InputError, match=message):
        div2k.prepare(CONFIG, tmp_path / "data", zips, sources=sources)


def test_a_missing_zip_that_cannot_be_downloaded_is_one_line(tmp_path, zips, sources):
    (zips / "DIV2K_valid_HR.zip").unlink()
    archive = sources["validation_hr"]
    with pytest.raises(InputError, match=r"DIV2K_valid_HR.zip in .*refused") as error:
        div2k.prepare(CONFIG, tmp_path / "data", zips, sources=sources)
    for fact in (archive.url, archive.sha256, f"{archive.size:,} bytes", str(zips)):
        assert fact in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_are_told_before_any_work(tmp_path, zips, sources):
    data = tmp_path / "data"
    with pytest.raises(InputError, match=r"bicubic_x8.*bicubic_x2, .*unknown_x4"):
        div2k.prepare("bicubic_x8", data, zips)
    with pytest.raises(InputError, match=r"no such file or folder: .*nowhere"):
        div2k.prepare(CONFIG, data, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"prepare div2k/bicubic_x4 .*4\.3 GB"):
        div2k.pairs(CONFIG, "train", data)
    with pytest.raises(InputError, match=r"no split 'test'.*train, validation"):
        div2k.pairs(CONFIG, "test", data)
    huge = {k: a._replace(size=10**16) for k, a in sources.items()}
    with pytest.raises(InputError, match=r"GB free of the 40000000\.0 GB needed"):
        div2k.prepare(CONFIG, data, zips, sources=huge)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot prepare"):
        div2k.prepare(CONFIG, tmp_path / "file", zips, sources=sources)


def test_data_in_another_format_is_neither_read_nor_overwritten(prepared, zips):
    info = prepared / "div2k" / CONFIG / div2k.VERSION / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert not div2k.is_prepared(CONFIG, prepared)
    with pytest.raises(InputError, match="no array_record data"):
        div2k.prepare(CONFIG, prepared, zips)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [truncate, flip_a_byte, pathlib.Path.unlink])
def test_a_damaged_record_file_is_named(prepared, harm):
    folder = prepared / "div2k" / CONFIG / div2k.VERSION
    (path,) = folder.glob("div2k-validation.array_record*")
    harm(path)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:  # noqa: PT012
        for _, load in div2k.pairs(CONFIG, "validation", prepared):
            load()
    assert "\n" not in str(error.value)
    for _, load in div2k.pairs(CONFIG, "train", prepared):
        load()


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "*-train*"])
def test_what_cannot_be_read_now_is_neither_damaged_nor_missing(prepared, name):
    """A link in a circle, which no one can follow."""
    (path,) = (prepared / "div2k" / CONFIG / div2k.VERSION).glob(name)
    path.unlink()
    path.symlink_to(path.name)

    def read():
        for _, load in div2k.pairs(CONFIG, "train", prepared):
            load()

    with pytest.raises((OSError, Failure), match="symbolic links") as error:
        read()
    assert "damaged" not in str(error.value)


def test_damaged_metadata_is_told_in_one_line(prepared):
    folder = prepared / "div2k" / CONFIG / div2k.VERSION
    truncate(folder / "features.json")
    with pytest.raises(InputError, match=re.escape(str(folder))):
        div2k.pairs(CONFIG, "train", prepared)


def test_a_write_error_is_one_line_and_leaves_nothing(tmp_path, zips, sources):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, limits[1]))
        with pytest.raises(InputError, match=r"cannot prepare .*too large") as error:
            div2k.prepare(CONFIG, tmp_path / "data", zips, sources=sources)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "data" / "div2k" / CONFIG).iterdir())


def test_more_than_tfds_sorts_in_memory_still_needs_no_tensorflow(
    tmp_path, zips, sources, monkeypatch
):
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 0)
    with pytest.raises(ModuleNotFoundError, match="tensorflow"):
        stock_way(tmp_path / "stock", zips, sources)
    div2k.prepare(CONFIG, tmp_path / "ours", zips, sources=sources)
    assert len(div2k.pairs(CONFIG, "train", tmp_path / "ours")) == 7


def test_without_a_folder_of_zips_downloads_are_kept_for_the_other_configs(
    tmp_path, zips, sources
):
    for part, archive in sources.items():
        sources[part] = archive._replace(url=(zips / archive.name).as_uri())
    div2k.prepare(CONFIG, tmp_path / "data", sources=sources)
    kept = tmp_path / "data" / "downloads" / "div2k"
    assert sorted(p.name for p in kept.iterdir()) == sorted(
        archive.name for archive in sources.values()
    )
    assert div2k.is_prepared(CONFIG, tmp_path / "data")


def test_without_the_package_the_user_is_told_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="DIV2K needs tensorflow-datasets"):
        div2k.sizes(CONFIG)
