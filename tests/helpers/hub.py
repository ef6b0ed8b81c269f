"""A hub of models on this machine: the few answers that huggingface_hub asks for."""

import contextlib
import hashlib
import http.server
import json
import re

from helpers import processes

JSON = {"Content-Type": "application/json"}


class Hub:
    """What is served, {"OWNER/NAME": {revision: {file: bytes}}}; what was asked for."""

    def __init__(self, models):
        self.models, self.requests, self.status = models, [], None

    def answer(self, path):
        """(status, headers, body)"""
        if self.status:
            return self.status, {}, b""
        parts = re.fullmatch(
            r"/(?:api/models/([^/]+/[^/]+)/(?:revision|(tree))/([^/?]+)(?:\?.*)?"
            r"|([^/]+/[^/]+)/resolve/([^/]+)/(.+))",
            path,
        )
        groups = parts.groups() if parts else [None] * 6
        name, revision, file = groups[0] or groups[3], groups[2] or groups[4], groups[5]
        if name not in self.models:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commits = {digest(r.encode()): r for r in self.models[name]}
        revision = commits.get(revision, revision)
        if revision not in self.models[name]:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files, of = self.models[name][revision], digest(revision.encode())
        if groups[1]:
            listed = [
                {"type": "file", "path": f, "size": len(data), "oid": digest(data)}
                for f, data in files.items()
            ]
            return 200, JSON, json.dumps(listed).encode()
        if groups[0]:
            siblings = [{"rfilename": f} for f in files]
            about = {"id": name, "sha": of, "siblings": siblings}
            return 200, JSON, json.dumps(about).encode()
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        headers = {"X-Repo-Commit": of, "ETag": f'"{digest(files[file])}"'}
        return 200, headers, files[file]


def digest(data):
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def serving(models):
    """Yields a Hub and its address on this machine."""
    hub = Hub(models)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with processes.serving(server) as port:
        yield hub, f"http://127.0.0.1:{port}"
