"""Standard streams that are closed, absent, gone or full; a machine without a home."""

import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest
from helpers import processes, tiny
from PIL import Image

PYTHON = shlex.quote(sys.executable)
BTSRN = f"{PYTHON} -m btsrn_jax.cli"


def run(tmp_path, command):
    """(exit codes, standard output, standard error) of a line of bash."""
    script = f"{command}\necho ${{PIPESTATUS[*]}} > {shlex.quote(str(tmp_path))}/codes"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=tiny.ROOT,
        timeout=300,
    )
    codes = (tmp_path / "codes").read_text().split()
    return [int(code) for code in codes], done.stdout, done.stderr


@pytest.mark.parametrize(
    ("streams", "code", "told"),
    [
        ("<&- >&- 2>&-", 0, 0),
        ("2>&1 | true", 0, 0),
        ("| head -1", 0, 1),
        (">/dev/full", 1, 2),
        (">/dev/full 2>&1", 1, 0),
        ("2>/dev/full", 0, 0),
    ],
)
def test_pictures_are_enlarged_whoever_listens(tmp_path, streams, code, told):
    """Whole, with nothing of what is said in them; `told` lines reach standard error:
    the model's, and that standard output is full."""
    photos = tiny.write_photos(tmp_path / "in")
    out = tmp_path / "out"
    command = f"{BTSRN} upscale {photos} {out} --model bicubic {streams}"
    codes, _, err = run(tmp_path, command)
    assert codes[0] == code, err
    assert len(err.splitlines()) == told, err
    assert sorted(p.name for p in out.iterdir()) == [f"photo{i}.png" for i in range(3)]
    for path in out.iterdir():
        with Image.open(path) as image:
            image.load()


@pytest.mark.parametrize(
    ("command", "streams", "codes", "told"),
    [
        ("models", "| true", [141, 0], 0),
        ("models", ">/dev/full", [1], 1),
        ("upscale --help", "| true", [141, 0], 0),
        ("models", "<&- >&- 2>&-", [0], 0),
    ],
)
def test_what_only_prints_ends_as_other_programs_do(
    tmp_path, command, streams, codes, told
):
    found, _, err = run(tmp_path, f"{BTSRN} {command} {streams}")
    assert found == codes, err
    assert len(err.splitlines()) == told, err


def test_training_needs_no_stream_at_all(tmp_path):
    """Its files are whole; a mistake still ends with 2."""
    hr_dir = tiny.write_photos(tmp_path / "hr", tiny.HR_SIZES)
    val = tiny.write_photos(tmp_path / "val", [(40, 40)])
    folder = tmp_path / "run"
    command = shlex.join(tiny.command(folder, hr_dir, sets=val, steps=2))
    assert run(tmp_path, f"{command} <&- >&- 2>&-") == ([0], "", "")
    step, _, _ = processes.final(folder)
    assert step == 2
    assert run(tmp_path, f"{command} --flug 2>&-") == ([2], "", "")


def test_a_line_is_one_write(tmp_path):
    """So lines of several streams and processes never mix, whatever Python is told of
    buffers: each packet of the socket is what one call wrote."""
    code = """
from btsrn_jax import progress, streams
streams.secure()
progress.log_to_stderr()
progress.logger.info("first" * 100)
print("second", "third")
with progress.progress_bar(total=2, desc="bar", unit="image") as bar:
    for _ in range(2):
        bar.update()
        print("beside")
"""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        subprocess.run(
            [sys.executable, "-u", "-c", code],
            stdout=there,
            stderr=there,
            cwd=tiny.ROOT,
            check=True,
            timeout=100,
        )
        there.close()
        packets = list(iter(lambda: here.recv(1 << 16), b""))
    assert all(
        packet.endswith(b"\n") and packet.count(b"\n") == 1 for packet in packets
    )
    assert packets[:2] == [b"first" * 100 + b"\n", b"second third\n"]
    assert packets.count(b"beside\n") == 2
    assert not any(b"\r" in packet for packet in packets)


@pytest.fixture
def open_path():
    """A folder that everybody may enter: pytest's own ones are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def test_without_a_home_directory_a_run_trains_and_what_needs_one_is_a_line(open_path):
    """A user that the machine does not know, as in many containers."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("only root, by setpriv, can become a user without an entry")
    open_path.chmod(0o777)
    rights = "+dac_override,+dac_read_search"  # of root: to read this checkout
    nobody = f"setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps {rights}"
    nobody += f" --ambient-caps {rights} env -u HOME -u BTSRN_CACHE -u XDG_CACHE_HOME"
    if subprocess.run([*nobody.split(), "true"], check=False).returncode:
        pytest.skip("this container grants no ambient capabilities")
    hr_dir = tiny.write_photos(open_path / "hr", tiny.HR_SIZES)
    for cache, code, said in (
        ("device", 0, "next: btsrn"),
        ("host", 2, "error: a store on the host needs a cache folder, and there is no"),
    ):
        folder = open_path / cache
        command = tiny.command(folder, hr_dir, steps=1)
        text = shlex.join([*command, f"--config.data.cache={cache}"])
        codes, _, err = run(open_path, f"{nobody} {text}")
        assert codes == [code], err
        assert said in err.splitlines()[-1]
        assert "Traceback" not in err
    codes, _, err = run(open_path, f"{nobody} {BTSRN} upscale '~/a.png' b.png")
    assert codes == [2]
    assert err.startswith("error: IN: ~/a.png: no home directory ~ is known here")
    assert err.count("\n") == 1


def test_nothing_takes_the_place_of_a_missing_stream_before_it_is_secured(tmp_path):
    """What the entries import keeps no file open: it would be written into."""
    code = "import os, sys\n"
    code += "from btsrn_jax import cli, main, streams\n"
    code += "there = [n for n in (0, 1, 2) if os.path.exists(f'/proc/self/fd/{n}')]\n"
    code += "streams.secure()\n"
    code += "names = [os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)]\n"
    code += "inherited = [os.get_inheritable(n) for n in (0, 1, 2)]\n"
    code += "open(sys.argv[1], 'w').write(repr((there, names, inherited)))"
    if not pathlib.Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    result = tmp_path / "result"
    script = f"{PYTHON} -c {shlex.quote(code)} {result} <&- >&- 2>&-"
    assert run(tmp_path, script)[0] == [0]
    assert eval(result.read_text()) == ([], ["/dev/null"] * 3, [True] * 3)
