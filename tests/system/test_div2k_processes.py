"""Claims about preparing DIV2K that need a process or a server."""

import contextlib
import http.server
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest
from helpers.div2k_zips import CONFIG, make_archives

from btsrn_jax import lock
from btsrn_jax.data import archives, div2k
from btsrn_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def zips(tmp_path):
    return tmp_path / "zips"


@pytest.fixture
def sources(zips):
    return make_archives(zips, CONFIG)


HANGS_HALFWAY = """
import sys, time, zipfile
from btsrn_jax.data import archives, div2k
read, count = zipfile.ZipFile.read, 0
def slow(*args):
    global count
    count += 1
    if count == 9:
        print("halfway", file=sys.__stdout__, flush=True)
        time.sleep(60)
    return read(*args)
zipfile.ZipFile.read = slow
sources = {{k: archives.Archive(*v) for k, v in {sources!r}.items()}}
div2k.prepare({config!r}, {data!r}, {zips!r}, sources=sources)
"""


def test_killed_halfway_it_is_not_taken_for_complete_and_runs_again(
    tmp_path, zips, sources
):
    data = tmp_path / "data"
    script = HANGS_HALFWAY.format(
        sources={k: tuple(v) for k, v in sources.items()},
        config=CONFIG,
        data=str(data),
        zips=str(zips),
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "halfway\n" in process.stdout
        with pytest.raises(InputError, match="in use by another prepare"):
            div2k.prepare(CONFIG, data, zips, sources=sources)
        process.send_signal(signal.SIGKILL)
    config_dir = data / "div2k" / CONFIG
    assert [p.name[:11] for p in config_dir.iterdir()] == ["incomplete."]
    assert not div2k.is_prepared(CONFIG, data)
    assert not tfds.builder(f"div2k/{CONFIG}", data_dir=data).is_prepared()
    div2k.prepare(CONFIG, data, zips, sources=sources)
    assert [p.name for p in config_dir.iterdir()] == [div2k.VERSION]
    assert len(div2k.pairs(CONFIG, "train", data)) == 7


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder.

    With `breaks` its first answer ends early; without `ranges` it sends whole files.
    """

    def __init__(self, folder, breaks, ranges):
        self.folder, self.breaks, self.ranges = folder, breaks, ranges
        self.requested = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        data = (server.folder / self.path[1:]).read_bytes()
        server.requested.append((self.path[1:], wanted))
        if server.ranges:
            data = data[int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) :]
        self.send_response(206 if server.ranges else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:100] if server.breaks else data)
        server.breaks = False

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(archive: archives.Archive, folder: pathlib.Path, **manners):
    with Server(folder, **manners) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            port = server.server_port
            yield (
                server,
                archive._replace(url=f"http://127.0.0.1:{port}/{archive.name}"),
            )
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_told_and_continued(tmp_path, zips, sources, ranges):
    data, remote = tmp_path / "data", tmp_path / "remote"
    remote.mkdir()
    name = "DIV2K_valid_LR_bicubic_X4.zip"
    (zips / name).rename(remote / name)
    archive = sources["validation_lr"]
    with served(archive, remote, breaks=True, ranges=ranges) as (server, archive):
        sources["validation_lr"] = archive
        # Other data may be prepared from the same archives at the same time.
        refused = pytest.raises(InputError, match="in use by another download")
        with lock.hold(zips, "download"), refused:
            div2k.prepare(CONFIG, tmp_path / "other", zips, sources=sources)
        with pytest.raises(InputError, match=r"stopped at 100 bytes .*again"):
            div2k.prepare(CONFIG, data, zips, sources=sources)
        div2k.prepare(CONFIG, data, zips, sources=sources)
    assert server.requested == [(name, "bytes=0-"), (name, "bytes=100-")]
    assert (zips / name).read_bytes() == (remote / name).read_bytes()
    assert len(div2k.pairs(CONFIG, "validation", data)) == 3


def test_a_download_killed_at_its_last_byte_starts_over(tmp_path, zips, sources):
    remote, archive = tmp_path / "remote", sources["train_lr"]
    remote.mkdir()
    data = (zips / archive.name).rename(remote / archive.name).read_bytes()
    (zips / f"{archive.name}.part").write_bytes(bytes(archive.size))
    with served(archive, remote, breaks=False, ranges=True) as (_, archive):
        sources["train_lr"] = archive
        div2k.prepare(CONFIG, tmp_path / "data", zips, sources=sources)
    assert (zips / archive.name).read_bytes() == data
    assert len(list(zips.iterdir())) == 4


def test_importing_the_module_imports_neither_tfds_nor_tensorflow():
    code = (
        "import sys, btsrn_jax.data.div2k; "
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
