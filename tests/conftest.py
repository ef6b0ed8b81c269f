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
