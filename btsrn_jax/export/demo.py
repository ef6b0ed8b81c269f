"""`btsrn demo`: serves the web page on this computer, to this computer alone."""

import contextlib
import functools
import http.server
import os
import pathlib
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable

from btsrn_jax.errors import InputError
from btsrn_jax.export.web_plan import plan_page

ADDRESS = "127.0.0.1"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answers with files of one folder, in the two headers that threads need."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def send_head(self):
        # Another site's name may be made to point here; no page of it gets an answer.
        host = self.headers.get("Host", "").partition(":")[0]
        if host not in (ADDRESS, "localhost"):
            self.send_error(403, "This page is for this computer alone")
            return None
        real = pathlib.Path(self.translate_path(self.path)).resolve()
        if not real.is_relative_to(pathlib.Path(self.directory).resolve()):
            self.send_error(404)
            return None
        return super().send_head()

    def list_directory(self, path):
        self.send_error(404)

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on the loopback address.

    Args:
      folder: what is served; nothing outside of it is.
      port: 0 for any that is free; it is bound at once.

    Raises:
      InputError: the port is taken, or not for this user.
    """

    def __init__(self, folder: pathlib.Path, port: int = 0) -> None:
        if not 0 <= port < 2**16:
            raise InputError(f"--port {port}: 0 to {2**16 - 1} was expected")
        handler = functools.partial(Handler, directory=str(folder))
        try:
            super().__init__((ADDRESS, port), handler)
        except OSError as error:
            raise InputError(
                f"--port {port}: {error.strerror}; without --port one that is free is"
                " taken"
            ) from None
        self.address = f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError):  # a browser may hang up
            super().handle_error(request, client_address)


def run_demo(
    sources: list[str],
    runtime_files: str | os.PathLike | None = None,
    port: int = 0,
    before: Callable[[], None] = lambda: None,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the page into a temporary folder, and serves it until Ctrl-C.

    Args:
      sources, runtime_files: as of `export_page`.
      port: on the loopback address; 0 for any that is free.
      before: is called once everything is checked, before JAX is loaded.
      log: takes lines of progress, and the page's address once it answers.

    Raises:
      InputError: as of `export_page`, or the port cannot be used.
      ParityError: as of `export_page`.
    """
    with tempfile.TemporaryDirectory(prefix="btsrn-demo-") as name:
        folder = pathlib.Path(name) / "page"
        plan_page(sources, folder, runtime_files)
        with Server(folder, port) as server:
            before()
            from btsrn_jax.export.web_page import export_page  # loads JAX

            export_page(sources, folder, runtime_files, log=log)
            log(f"{server.address} (Ctrl-C ends it)")
            threading.Thread(target=_open, args=[server.address], daemon=True).start()
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


def _open(address):
    """Opens an address in the browser, if there is one with windows: one for the
    terminal would take it over."""
    if sys.platform in ("darwin", "win32") or any(
        map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    ):
        webbrowser.open(address)
