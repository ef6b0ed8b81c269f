"""The Chromium that is on this machine, for tests of pages."""

import contextlib
import os
import shutil

import pytest

NAMES = (os.environ.get("CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium (apt-get install chromium, or CHROMIUM names another)",
)


@contextlib.contextmanager
def chromium(*args):
    """A browser started with further arguments."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (the extra test)"
    )
    args = [*args, *["--no-sandbox"] * (os.geteuid() == 0)]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=args)
        with browser:
            yield browser
