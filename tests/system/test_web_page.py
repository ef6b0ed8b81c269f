"""The web page in a real Chromium, with npm's onnxruntime-web: its pictures are those
of `btsrn upscale`, nothing leaves the computer, and what goes wrong is one sentence."""

import base64
import contextlib
import functools
import http.server
import io
import os
import statistics
import time

import numpy as np
import pytest
from helpers import processes, runs
from helpers.browser import CHROMIUM, needs_chromium
from helpers.photos import exif_block, noise
from PIL import Image

from btsrn_jax import inference
from btsrn_jax.export import demo, formats, web_page, web_plan
from btsrn_jax.images import decode, encode

RUNTIME = os.environ.get("ONNXRUNTIME_WEB") or None
SIZES = ((1, 1), (37, 29), (70, 133))

pytest.importorskip("onnx", reason="onnx is not installed (the extra test)")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (the extra test)"
)
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(
        RUNTIME is None,
        reason=f"ONNXRUNTIME_WEB names no folder dist of npm's onnxruntime-web"
        f" {web_plan.VERSION}",
    ),
]


def serving(handler):
    """The port of a server of HTTP in a thread."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    return processes.serving(server)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Runs of tiny networks of noise at all scales."""
    folder = tmp_path_factory.mktemp("models")
    for scale in (2, 3, 4):
        runs.make(folder / f"tiny-x{scale}", scale=scale)
    return [str(folder / f"tiny-x{scale}") for scale in (2, 3, 4)]


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """The page, the runtime beside it."""
    out = tmp_path_factory.mktemp("site") / "page"
    web_page.export_page(models, out, RUNTIME, log=lambda line: None)
    return out


@pytest.fixture(scope="module")
def site(folder):
    """The page as `btsrn demo` serves it."""
    handler = functools.partial(demo.Handler, directory=str(folder))
    with serving(handler) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def launch():
    """Starts a browser with further arguments."""
    with playwright.sync_playwright() as play:

        def start(*args):
            args = [*args, *["--no-sandbox"] * (os.geteuid() == 0)]
            return play.chromium.launch(executable_path=CHROMIUM, args=args)

        yield start


@pytest.fixture(scope="module")
def browser(launch):
    with launch() as chromium:
        yield chromium


@pytest.fixture
def page(browser):
    """An empty page that keeps a list of the addresses it asked, and of its errors."""
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(120_000)  # of a busy machine
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


ENDED = "!document.getElementById('working').checkVisibility()"
SAVED = """async () => {
  const { href } = document.getElementById("save");
  const bytes = new Uint8Array(await (await fetch(href)).arrayBuffer());
  return btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));
}"""


def enlarge(page, path, scale):
    """The PNG file that the page makes of a picture."""
    page.set_input_files("#file", path)
    page.check(f"[name=scale][value='{scale}']")
    page.click("#start")
    page.wait_for_function(ENDED, timeout=60_000)
    assert page.text_content("#problem") == ""
    return base64.b64decode(page.evaluate(SAVED))


def write_pictures(folder):
    """Pictures of every kind that a page can read to the last bit."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for h, w in SIZES:
        pixels = noise(h, w, 3, seed=h)
        encode.write_picture(folder / f"rgb{h}x{w}.png", decode.Picture(pixels))
    pixels = noise(21, 34, 3)
    alpha = rng.choice(np.array([0, 0, 90, 255], np.uint8), (21, 34))
    alpha[:8, :9], alpha[12:, 20:] = 0, 255
    kinds = {
        "holes.png": decode.Picture(pixels, alpha),
        "misty.png": decode.Picture(pixels, np.full((21, 34), 128, np.uint8)),
        "grey.png": decode.Picture(pixels[..., :1]),
        "greyholes.png": decode.Picture(pixels[..., :1], alpha),
        "lossless.webp": decode.Picture(pixels),
    }
    for name, picture in kinds.items():
        encode.write_picture(folder / name, picture)
    turned = exif_block(6, 34, 21)
    Image.fromarray(pixels).save(folder / "turned.jpg", quality=95, exif=turned)
    Image.fromarray(pixels[..., 0]).save(folder / "grey.jpg", quality=95)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_page_makes_the_pictures_of_btsrn_upscale(
    site, page, models, tmp_path, scale, record_property
):
    write_pictures(tmp_path / "in")
    largest = 0
    model = inference.load_model(models[scale - 2])
    page.goto(site)
    for path in sorted((tmp_path / "in").iterdir()):
        (tmp_path / "web.png").write_bytes(enlarge(page, path, scale))
        found = decode.read_picture(tmp_path / "web.png")
        work = inference.plan_files([path], tmp_path / "ours.png", force=True)
        assert (
            inference.upscale_files(work, lambda *_: model, scale, lambda line: 0) == 0
        )
        wanted = decode.read_picture(tmp_path / "ours.png")
        assert found.pixels.shape[:2] == wanted.pixels.shape[:2], path.name
        assert (found.alpha is None) == (wanted.alpha is None), path.name
        if wanted.alpha is not None:
            off = np.abs(found.alpha.astype(int) - wanted.alpha).max()
            assert off <= 1, (path.name, off)
        visible = found.alpha is None or (found.alpha > 0)[..., None]
        off = np.abs(found.pixels.astype(int) - wanted.pixels) * visible
        assert off.max() <= 1, (path.name, off.max())
        largest = max(largest, int(off.max()))
    record_property(f"web page, x{scale}, largest difference in grey levels", largest)
    assert page.errors == []
    assert {a.split("/")[2] for a in page.requests if a.startswith("http")} == {
        site.split("/")[2]
    }
    assert page.text_content("#runs").startswith("WebAssembly")


def test_the_sample_is_enlarged_by_the_keyboard_and_compared(site, page):
    """At 400 px nothing is wider than the screen; progress and cancelling work."""
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(site)
    page.focus("#sample")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.getElementById('start').disabled")
    page.focus("#start")
    page.keyboard.press("Enter")
    page.wait_for_function(ENDED, timeout=60_000)
    assert page.text_content("#size").startswith("480 \N{MULTIPLICATION SIGN} 320 ")
    assert page.evaluate("document.activeElement.id") == "split"
    for _ in range(100):
        page.keyboard.press("ArrowRight")
    style = "getComputedStyle(document.getElementById('before')).clipPath"
    assert page.evaluate(style) != "inset(0px 50% 0px 0px)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "sample-x2.png"


def test_cancel_ends_the_work_and_the_next_picture_is_whole(site, page, tmp_path):
    encode.write_picture(tmp_path / "large.png", decode.Picture(noise(1500, 1500, 3)))
    encode.write_picture(tmp_path / "small.png", decode.Picture(noise(9, 9, 3)))
    page.goto(site)
    page.set_input_files("#file", tmp_path / "large.png")
    page.click("#start")
    page.wait_for_function(
        "/^[1-9]\\d* %, \\d+:\\d\\d left$/.test(status.textContent)".replace(
            "status", "document.getElementById('status')"
        ),
        timeout=60_000,
    )
    page.click("#cancel")
    page.wait_for_function(ENDED, timeout=10_000)
    assert page.is_hidden("#result")
    made = enlarge(page, tmp_path / "small.png", 2)
    assert Image.open(io.BytesIO(made)).size == (18, 18)


def test_what_is_no_picture_is_one_sentence(site, page, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page.goto(site)
    page.set_input_files("#file", tmp_path / "notes.png")
    page.click("#start")
    page.wait_for_selector("#problem:visible")
    told = page.text_content("#problem")
    assert told.startswith("notes.png is no picture that this browser can read")


GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")


def test_a_gpu_that_agrees_computes_the_picture(launch, models, monkeypatch, tmp_path):
    """Chromium's own GPU in software."""
    monkeypatch.setitem(web_page.TILES, 2, 32)  # it is slow
    web_page.export_page(models[:1], tmp_path / "page", RUNTIME, log=lambda line: None)
    path, target = tmp_path / "in.png", tmp_path / "out.png"
    encode.write_picture(path, decode.Picture(noise(37, 29, 3)))
    handler = functools.partial(demo.Handler, directory=str(tmp_path / "page"))
    with serving(handler) as port, launch(*GPU) as chromium:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        if page.evaluate("navigator.gpu?.requestAdapter()") is None:
            pytest.skip("this Chromium has no GPU in software")
        made = enlarge(page, path, 2)
        assert page.text_content("#runs") == "WebGPU"
    work = inference.plan_files([path], target)
    model = inference.load_model(models[0])
    assert inference.upscale_files(work, lambda *_: model, 2, lambda line: 0) == 0
    found, wanted = (np.asarray(Image.open(f)) for f in (io.BytesIO(made), target))
    assert np.abs(found.astype(int) - wanted).max() <= 1


class Cdn(http.server.SimpleHTTPRequestHandler):
    """Another site, which lets pages read its files; one of them may be changed."""

    changed = None

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def copyfile(self, source, output):
        data = source.read()
        if self.changed and self.path.endswith(self.changed):
            data = data[:-1] + b" "
        output.write(data)

    def log_message(self, *args):
        pass


def test_the_runtime_comes_from_a_cdn_unchanged_or_not_at_all(
    models, page, tmp_path, monkeypatch
):
    folder, picture = tmp_path / "page", tmp_path / "p.png"
    encode.write_picture(picture, decode.Picture(noise(9, 9, 3)))
    with contextlib.ExitStack() as cdn:
        port = cdn.enter_context(serving(functools.partial(Cdn, directory=RUNTIME)))
        there = f"http://127.0.0.1:{port}/"
        web_page.export_page(models[:1], folder, cdn=there, log=lambda line: None)
        assert not (folder / "runtime").exists()
        with serving(functools.partial(demo.Handler, directory=str(folder))) as port:
            here = f"http://127.0.0.1:{port}/"
            page.goto(here)
            assert enlarge(page, picture, 2)
            assert page.evaluate("crossOriginIsolated")
            monkeypatch.setattr(Cdn, "changed", "ort-wasm-simd-threaded.wasm")
            page.goto(here)
            told = refused(page, picture)
            assert "ort-wasm-simd-threaded.wasm is not the file" in told
            monkeypatch.setattr(Cdn, "changed", None)
            data = (folder / "models" / "x2.onnx").read_bytes()
            (folder / "models" / "x2.onnx").write_bytes(b"something else")
            page.goto(here)
            told = refused(page, picture)
            assert told.startswith("models/x2.onnx could not be loaded")
            (folder / "models" / "x2.onnx").write_bytes(data)
            cdn.close()
            page.goto(here)
            assert "there is no connection" in refused(page, picture)


def refused(page, path):
    page.set_input_files("#file", path)
    page.click("#start")
    page.wait_for_selector("#problem:visible", timeout=60_000)
    return page.text_content("#problem")


class Plain(http.server.SimpleHTTPRequestHandler):
    """Any server of files: without the two headers."""

    def log_message(self, *args):
        pass


OPEN = """async (file) => {
  const { load } = await import("./runtime.js");
  const { runtime } = await (await fetch("models.json")).json();
  window.ort = await load(runtime, false);
  const bytes = new Uint8Array(await (await fetch(file)).arrayBuffer());
  window.session = await ort.InferenceSession.create(bytes);
}"""
RUN = """async (side) => {
  const values = new Float32Array(3 * side * side).fill(0.5);
  const lr = new ort.Tensor("float32", values, [1, 3, side, side]);
  const begin = performance.now();
  const { sr } = await session.run({ lr });
  return [(performance.now() - begin) / 1000, sr.dims[3]];
}"""


def test_without_the_headers_one_thread_computes_the_same(
    page, folder, tmp_path, record_property
):
    """And at which rate, beside onnxruntime outside of a browser, in turns."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    encode.write_picture(tmp_path / "p.png", decode.Picture(noise(9, 9, 3)))
    released = tmp_path / "released.onnx"
    formats.write_onnx(web_page.load_source("btsrn-x2"), released, tile=True)
    with serving(functools.partial(Plain, directory=str(folder))) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        assert enlarge(page, tmp_path / "p.png", 2)
        assert page.text_content("#runs") == "WebAssembly, 1 thread"
        data = base64.b64encode(released.read_bytes()).decode()
        page.evaluate(OPEN, f"data:application/octet-stream;base64,{data}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(released, options)
    lr = np.full((1, 3, 72, 72), 0.5, np.float32)
    web, native = [], []
    for _ in range(3):
        seconds, side = page.evaluate(RUN, 72)
        web.append(seconds)
        begin = time.perf_counter()
        (sr,) = session.run(None, {"lr": lr})
        native.append(time.perf_counter() - begin)
    assert sr.shape[3] == side == 112
    web, native = (side**2 / 1e6 / statistics.median(times) for times in (web, native))
    rates = f"{web:.3f}, onnxruntime {native:.3f}: {web / native:.2f} times"
    record_property("web page, megapixels a second of btsrn-x2, one thread", rates)
