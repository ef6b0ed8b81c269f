"""Eight simulated devices, before JAX is imported; the shared photographs, if any.

All test processes, and the processes that they start, share one compilation cache: a
program is compiled once per test run. In the test process itself programs are compiled
fast and run slowly; values stay the same but for rounding, and processes that tests
start compile as users' do. JAX_DISABLE_MOST_OPTIMIZATIONS=0 has it so here, too.
"""

import logging
import os
import pathlib
import shutil
import signal
import tempfile

# The tests may run under nohup or in the background. What they start would inherit
# that, and a closed terminal or Ctrl-C would be nothing to it.
for _ignored, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_ignored) == signal.SIG_IGN:
        signal.signal(_ignored, _usual)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

CACHE = "JAX_COMPILATION_CACHE_DIR"
if CACHE not in os.environ:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="btsrn-tests-")
    os.environ["BTSRN_TEST_CACHE_OWNER"] = str(os.getpid())
os.environ.setdefault("BTSRN_CACHE", os.path.join(os.environ[CACHE], "btsrn"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_unconfigure():
    """Removes the cache, in the process that made it: workers inherit it."""
    if os.environ.get("BTSRN_TEST_CACHE_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Marks what starts processes, servers or builds: `pytest -m "not system"`."""
    for item in items:
        if "system" in item.path.parts:
            item.add_marker("system")


def pytest_terminal_summary(terminalreporter):
    """Prints what tests have measured, by pytest's fixture `record_property`."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(autouse=True)
def messages():
    """The logger of messages to people as a user's process has it; afterwards as it
    was: an entry point that a test calls sends them to standard error."""
    logger = logging.getLogger("btsrn")
    before = logger.handlers, logger.propagate, logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.handlers, logger.propagate, logger.level = before


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
