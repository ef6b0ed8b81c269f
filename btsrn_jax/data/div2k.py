"""DIV2K in TFDS's own layout, prepared and read without TensorFlow.

`prepare` writes what `tfds.builder("div2k/bicubic_x4")` expects to find; `pairs` reads
it image by image. tensorflow_datasets is imported only by what needs it, so that the
package works on machines without it; TensorFlow never is.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from btsrn_jax import lock, storage
from btsrn_jax.data.archives import Archive, bytes_bar, collect, gigabytes
from btsrn_jax.errors import Failure, InputError, first_line

CONFIGS = tuple(f"{track}_x{s}" for track in ("bicubic", "unknown") for s in (2, 3, 4))
SPLITS = ("train", "validation", "train+validation")
VERSION = "2.0.0"  # of the stock builder; part of the path
# In a RuntimeError of array_record; what else it says is the system's.
CORRUPT = r"Corrupted|should be at least|[Tt]runcated|No such file|Is a directory"
FIRST = {"train": 1, "validation": 801}  # DIV2K's number of a split's first image


def archives(config: str) -> dict[str, Archive]:
    """Returns the zips of a config by part, with the checksums that TFDS ships.

    The parts are train_lr, train_hr, validation_lr, validation_hr.

    Raises:
      InputError: the config is unknown, or TFDS is not installed.
    """
    _folder(config, Path())  # refuses an unknown config
    stock = _tfds().builder_cls("div2k")
    urls = stock.builder_configs[config].download_urls
    found = {}
    for split, kind in itertools.product(FIRST, ("lr", "hr")):
        url = urls[f"{split[:5]}_{kind}_url"]  # the stock builder says "valid"
        info = stock.url_infos[url]
        found[f"{split}_{kind}"] = Archive(url, int(info.size), info.checksum)
    return found


def sizes(config: str) -> tuple[int, int]:
    """Returns the bytes to download, and about how many the prepared data takes.

    They are equal: PNG files hardly shrink in a zip, and the records hold them as is.
    """
    total = sum(archive.size for archive in archives(config).values())
    return total, total


def is_prepared(config: str, data_dir: Path) -> bool:
    """Returns True if `pairs` can read a config, by two small files beside the data.

    Raises:
      InputError: there is data, and it is damaged.
      OSError: there may be data, and it cannot be read.
    """
    folder = _folder(config, data_dir)
    file = folder / "dataset_info.json"
    try:
        info = json.loads(file.read_bytes())
        # With TensorFlow, TFDS writes tfrecord by default: it has no random access.
        readable = info.get("fileFormat") == "array_record"
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (ValueError, AttributeError) as error:
        raise _damaged(file, error) from None
    return readable and storage.is_there(folder / "features.json")


def missing_message(config: str, data_dir: Path) -> str:
    """Returns one line for a user without the data: what to run, and what it costs."""
    download, prepared = map(gigabytes, sizes(config))
    bucket = storage.in_bucket(data_dir)
    folder = "data" if bucket else shlex.quote(str(data_dir))
    copy = f" and `gcloud storage cp -r data/div2k {data_dir}/`" if bucket else ""
    return (
        f"no prepared DIV2K {config} in {data_dir}: run `btsrn prepare div2k/{config} "
        f"--data-dir {folder}`{copy} (a download of {download}, prepared {prepared})"
    )


def prepare(
    config: str,
    data_dir: Path,
    zips: Path | None = None,
    *,
    sources: dict[str, Archive] | None = None,
) -> None:
    """Prepares a config as the stock TFDS builder would; does nothing if it is there.

    An interrupted run leaves nothing that looks complete: the next one continues its
    download and writes the data afresh.

    Args:
      config: one of CONFIGS.
      data_dir: where the prepared data goes, in TFDS's own layout.
      zips: folder of DIV2K's archives. They are used in place, after a check of size
        and SHA-256; missing ones are downloaded into it. By default it is
        `data_dir/downloads/div2k`, so that all configs share the HR archives.
      sources: the archives, where they are not DIV2K's own (see `archives`).

    Raises:
      InputError: the config is unknown, an archive is damaged or cannot be had, the
        disk is too small, or another `prepare` is at work in `data_dir`.
    """
    folder = _folder(config, data_dir)
    if is_prepared(config, data_dir):
        print(f"{folder} is prepared already: nothing to do")
        return
    if folder.exists():
        raise InputError(
            f"{folder} is no array_record data: move it, or prepare elsewhere"
        )
    if zips is not None and not Path(zips).is_dir():
        raise InputError(f"--zips: {storage.missing(zips)}")
    root = folder.parents[2]  # data_dir
    store = Path(zips or root / "downloads" / "div2k")
    sources = sources or archives(config)
    paths = {part: store / archive.name for part, archive in sources.items()}
    try:
        store.mkdir(parents=True, exist_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock.hold(root / "div2k", "prepare"):
            for stale in folder.parent.glob(f"incomplete.*_{VERSION}"):
                shutil.rmtree(stale)  # of a killed run; TFDS never removes them
            collect(list(sources.values()), store, folder.parent)
            builder = _builder_class(paths)(config=config, data_dir=root)
            # TFDS announces sizes that it does not know.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(file_format="array_record")
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        # array_record raises RuntimeError for a full disk.
        raise InputError(f"cannot prepare {folder}: {first_line(error)}") from None
    print(f"{folder} is prepared")


def pairs(
    config: str, split: str, data_dir: Path
) -> list[tuple[str, Callable[[], tuple[np.ndarray, np.ndarray]]]]:
    """Returns (name, load) for each image of a split, in DIV2K's own order.

    Names are numbers such as "0801". `load()` reads and decodes (lr, hr), (h, w, 3) and
    (s h, s w, 3) uint8. It may be called from many threads at once, and raises
    InputError with the file's name if the data is damaged, Failure if it cannot be read
    for another reason.

    Args:
      config: one of CONFIGS.
      split: one of SPLITS.
      data_dir: as of `prepare`; it may lie in a bucket.

    Raises:
      InputError: the config or the split is unknown, or the data is not prepared.
    """
    if split not in SPLITS:
        raise InputError(f"no split {split!r} of DIV2K: {', '.join(SPLITS)}")
    if not is_prepared(config, data_dir):
        raise InputError(missing_message(config, data_dir))
    tfds, folder = _tfds(), _folder(config, data_dir)
    as_bytes = {"lr": tfds.decode.SkipDecoding(), "hr": tfds.decode.SkipDecoding()}
    loaders = []
    try:
        builder = tfds.builder_from_directory(folder)
        for part in split.split("+"):
            records = builder.as_data_source(part, decoders=as_bytes)
            info = builder.info.splits[part]
            lengths = zip(info.filepaths, info.shard_lengths, strict=True)
            files = [file for file, length in lengths for _ in range(length)]
            # The records hold no name, but their order tells it.
            numbers = range(FIRST[part], FIRST[part] + len(files))
            names = _tfds_order(part, [f"{n:04d}x{config[-1]}.png" for n in numbers])
            for i, (name, file) in enumerate(zip(names, files, strict=True)):
                loaders.append((name[:4], functools.partial(_load, records, i, file)))
    except Exception as error:  # protobuf, JSON and TFDS raise many types
        raise _judged(folder, error) from None
    return sorted(loaders, key=lambda pair: pair[0])


def _load(records, index, file):
    """Reads and decodes (lr, hr) of one record; `file` is named in errors."""
    try:
        pngs = [records[index][key] for key in ("lr", "hr")]
    except Exception as error:  # array_record and protobuf raise many types
        raise _judged(file, error) from None
    try:
        lr, hr = (Image.open(io.BytesIO(png)).convert("RGB") for png in pngs)
    except MemoryError:
        raise
    except Exception as error:  # so does Pillow; all that it reads is in memory
        raise _damaged(file, error) from None
    return np.asarray(lr), np.asarray(hr)


def _tfds_order(split: str, names: list[str]) -> list[str]:
    """Returns LR file names in the order of TFDS's records: by a salted hash."""

    def key(name: str) -> bytes:
        return hashlib.md5(f"{split}{name}".encode()).digest()

    return sorted(names, key=key)


def _builder_class(paths: dict[str, Path]) -> type:
    """Returns the stock builder with another way from the archives to the records.

    The stock way extracts the archives, and sorts whatever exceeds 1 GB through
    TensorFlow's files. The order is known beforehand, so nothing has to be sorted.
    """
    tfds = _tfds()
    stock = tfds.builder_cls("div2k")

    class Builder(stock, skip_registration=True):
        __module__ = stock.__module__  # where TFDS looks for the description
        name = stock.name

        @property
        def data_path(self):
            return storage.literal(Path(self.data_dir))  # TFDS globs it

        def _download_and_prepare(self, dl_manager, download_config):
            infos = [_write_split(self, split, paths) for split in FIRST]
            self.info.set_splits(tfds.core.SplitDict(infos))

    return Builder


def _write_split(builder, split: str, paths: dict[str, Path]):
    """Writes the shards of a split into the builder's folder; returns its SplitInfo."""
    tfds = _tfds()
    lr_path, hr_path = paths[f"{split}_lr"], paths[f"{split}_hr"]
    with zipfile.ZipFile(lr_path) as lr_zip, zipfile.ZipFile(hr_path) as hr_zip:
        lr_files, hr_files = _pngs(lr_zip), _pngs(hr_zip)
        total = sum(i.file_size for i in (*lr_files.values(), *hr_files.values()))
        written = []  # bytes of each record

        def records(bar: tqdm) -> Iterator[tuple[str, bytes]]:
            for name in _tfds_order(split, list(lr_files)):  # "0001x4.png"
                lr = lr_zip.read(lr_files[name])
                hr = hr_zip.read(hr_files[f"{name[:4]}.png"])
                record = builder.info.features.serialize_example({"lr": lr, "hr": hr})
                written.append(len(record))
                bar.update(len(lr) + len(hr))
                yield name, record

        # As many shards, cut at the same records, as the stock builder would write.
        config = tfds.download.DownloadConfig().get_shard_config()
        count = config.get_number_shards(total, len(lr_files))
        ends = [round(len(lr_files) * i / count) for i in range(count + 1)]
        lengths = [end - start for start, end in itertools.pairwise(ends)]
        template = builder._get_filename_template(split)
        writer = builder._example_writer()
        with bytes_bar(f"write {split}", total) as bar:
            stream = records(bar)
            for i, length in enumerate(lengths):
                path = template.sharded_filepath(shard_index=i, num_shards=count)
                writer.write(path, itertools.islice(stream, length))
    return tfds.core.SplitInfo(split, lengths, sum(written), template)


def _pngs(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the images of an archive, in whatever folder, by file name."""
    infos = {PurePosixPath(info.filename).name: info for info in archive.infolist()}
    return {name: info for name, info in infos.items() if name.endswith(".png")}


def _tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(f"DIV2K needs tensorflow-datasets: {error}") from None
    return tensorflow_datasets


def _folder(config: str, data_dir: Path) -> Path:
    """Returns where a config lies in `data_dir`; InputError if there is no such one."""
    if config not in CONFIGS:
        raise InputError(f"no config {config!r} of DIV2K: {', '.join(CONFIGS)}")
    root = storage.path(data_dir)
    storage.check_array_path(root)
    return root / "div2k" / config / VERSION


def _judged(path: Path, error: Exception) -> InputError | Failure:
    """Returns what reading `path` is to raise: what is not known to be damage is not
    taken for it."""
    malformed = isinstance(error, (ValueError, KeyError, FileNotFoundError))
    by_protobuf = type(error).__module__.startswith("google.protobuf")
    if malformed or by_protobuf or re.search(CORRUPT, str(error)):
        return _damaged(path, error)
    return Failure(f"cannot read {path}, which may be whole: {first_line(error)}")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged ({first_line(error)}): remove its folder and prepare again"
    )
