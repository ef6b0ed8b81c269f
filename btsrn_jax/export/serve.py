"""`btsrn demo`: serves the web page on this computer, to this computer alone."""

import functools
import http.server
import pathlib
from collections.abc import Callable

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
        host = self.headers.get("Host", "").rpartition(":")[0]
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


def serve(folder: pathlib.Path, port: int, ready: Callable[[str], None]) -> None:
    """Serves a folder on the loopback address until the process is interrupted.

    Args:
      folder: what is served; nothing outside of it is.
      port: 0 for any that is free.
      ready: takes the page's address once it answers.

    Raises:
      OSError: the port is taken.
    """
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer((ADDRESS, port), handler) as server:
        ready(f"http://{ADDRESS}:{server.server_port}/")
        server.serve_forever()
