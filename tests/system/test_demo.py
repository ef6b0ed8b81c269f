"""`btsrn demo` as a process, and its server: this computer and that folder alone."""

import http.client
import json
import os
import signal
import subprocess
import sys

import pytest
from helpers import processes, runs

from btsrn_jax.errors import InputError
from btsrn_jax.export import demo


def ask(port, path, **headers):
    """(status, headers, content) of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, answer.headers, text


def test_the_server_answers_this_computer_with_that_folder_alone(tmp_path, capfd):
    folder = tmp_path / "page"
    (folder / "models").mkdir(parents=True)
    (folder / "index.html").write_text("<p>here</p>")
    (folder / "large").write_bytes(bytes(30_000_000))
    (tmp_path / "secret").write_text("elsewhere")
    (folder / "link").symlink_to(tmp_path / "secret")
    with processes.serving(demo.Server(folder)) as port:
        code, headers, text = ask(port, "/")
        assert (code, text) == (200, b"<p>here</p>")
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert ask(port, "/", Host="localhost")[0] == 200  # at port 80 without it
        for host in ("elsewhere.example", f"elsewhere.example:{port}", ""):
            assert ask(port, "/", Host=host)[0] == 403
        for path in ("/../secret", "/%2e%2e/secret", "/link", "/models/", "/none"):
            code, _, text = ask(port, path)
            assert code == 404, path
            assert b"elsewhere" not in text
        hasty = http.client.HTTPConnection("127.0.0.1", port)
        hasty.request("GET", "/large")
        hasty.sock.close()
        hasty.close()
        with pytest.raises(InputError, match=rf"--port {port}: Address already in use"):
            demo.Server(folder, port)
        assert ask(port, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_the_demo_opens_the_browser_and_ends_quietly_by_ctrl_c(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed (the extra test)")
    runs.make(tmp_path / "run")
    (tmp_path / "tmp").mkdir()
    opened = tmp_path / "opened"
    told = f"open({str(opened)!r}, 'w').write('%s')"
    browser = f'{sys.executable} -c "{told}"'
    process = subprocess.Popen(
        [sys.executable, "-m", "btsrn_jax.cli", "demo", tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp"), "BROWSER": browser},
    )
    try:
        processes.until(process, lambda: opened.exists() and opened.read_text())
        address = opened.read_text()
        port = int(address.removeprefix("http://127.0.0.1:").removesuffix("/"))
        code, headers, text = ask(port, "/models.json")
        assert code == 200
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        (model,) = json.loads(text)["models"]
        assert model["name"] == "run"
        assert len(ask(port, f"/{model['file']}")[2]) > 1000
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.endswith(f"{address} (Ctrl-C ends it)\n")
    assert list((tmp_path / "tmp").glob("btsrn*")) == []
