"""Eight simulated devices, before JAX is imported; the shared photographs, if any."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import pytest


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of shared benchmark images, named by BTSRN_DATA."""
    root = os.environ.get("BTSRN_DATA", "")
    if not root or not pathlib.Path(root).is_dir():
        pytest.skip("the environment variable BTSRN_DATA names no folder of images")
    return pathlib.Path(root)


@pytest.fixture
def permissions_count(tmp_path, monkeypatch):
    """As for any user: root becomes nobody. Paths must be relative to `tmp_path`, since
    its parents are root's own."""
    monkeypatch.chdir(tmp_path)
    is_root = os.geteuid() == 0
    if is_root:
        tmp_path.chmod(0o777)
        os.setresuid(65534, 65534, 0)
    yield
    if is_root:
        os.setresuid(0, 0, 0)
