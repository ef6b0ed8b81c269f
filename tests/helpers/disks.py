"""File systems that are small enough to be filled."""

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def mounted(place, size):
    """Mounts an empty file system of a size such as "1m" at a new folder; skips the
    test where that is not permitted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, stderr=-3).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)
