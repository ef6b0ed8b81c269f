"""`upscale_files`: where outputs go, what they keep, and 500 damaged files."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import signal
import struct
from time import sleep

import numpy as np
import pytest
from helpers.containers import chunk, png, smooth
from helpers.photos import exif_block, noise
from PIL import Image

from btsrn_jax.errors import InputError
from btsrn_jax.images import decode, encode
from btsrn_jax.images import files as images
from btsrn_jax.inference import jobs, models, photo, upscale
from btsrn_jax.resize import imresize

SCALE = 2
PLAIN = jobs.Output()


def bicubic(lr, progress=None):
    """An `upscale` function as `upscale_files` wants it."""
    top = np.iinfo(lr.dtype).max
    sr = imresize(lr.astype(np.float64), SCALE)
    if progress:
        progress(lr.size // 6, lr.size // 3)
        progress(lr.size // 3, lr.size // 3)
    return np.clip(np.rint(sr), 0, top).astype(lr.dtype)


def run(inputs, out, function=bicubic, lines=None, output=PLAIN, **options):
    """The exit code, and what was said."""
    lines = [] if lines is None else lines
    work = jobs.plan_files(inputs, out, output, **options)
    model = models.Model("test", SCALE, 0, function, "")
    return upscale.upscale_files(work, lambda *_: model, None, lines.append), lines


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "Fotos äöü"
    for k, name in enumerate(["a 1.png", "sub/b.jpg", "sub/deep/c.webp"]):
        images.write_image(folder / name, noise(6, 8, 3, seed=k))
    return folder


def test_a_folder_keeps_its_tree(photos, tmp_path):
    code, lines = run([photos], tmp_path / "out")
    assert code == 0
    assert tree(tmp_path / "out") == ["a 1.png", "sub/b.jpg", "sub/deep/c.webp"]
    assert lines[-1] == "3 written, 0 skipped, 0 failed"
    assert len(lines) == 4
    for path in images.find_images(tmp_path / "out"):
        assert decode.image_size(path) == (12, 16)


def test_one_file_goes_to_a_file_or_into_a_folder(photos, tmp_path):
    source = photos / "a 1.png"
    code, lines = run([source], tmp_path / "new" / "x.tif")
    assert code == 0
    assert len(lines) == 1
    want = bicubic(images.read_image(source))
    np.testing.assert_array_equal(images.read_image(tmp_path / "new" / "x.tif"), want)
    assert run([source], tmp_path / "folder")[0] == 0
    (tmp_path / "named.png").mkdir()
    assert run([source], tmp_path / "named.png")[0] == 0
    assert tree(tmp_path / "folder") == tree(tmp_path / "named.png") == ["a 1.png"]


def test_files_of_other_suffixes_become_png(photos, tmp_path):
    odd = tmp_path / "scan.dat"
    odd.write_bytes((photos / "sub/b.jpg").read_bytes())
    assert run([odd, photos / "a 1.png"], tmp_path / "out")[0] == 0
    assert tree(tmp_path / "out") == ["a 1.png", "scan.dat.png"]


def test_existing_outputs_are_refused_all_at_once_replaced_or_skipped(photos, tmp_path):
    out = tmp_path / "out"
    run([photos], out)
    (out / "a 1.png").unlink()
    before = {p: p.stat().st_mtime_ns for p in images.find_images(out)}
    with pytest.raises(InputError) as caught:
        run([photos], out)
    assert len(str(caught.value).splitlines()) == 2
    assert not (out / "a 1.png").exists()
    code, lines = run([photos], out, resume=True)
    assert (code, lines[-1]) == (0, "1 written, 2 skipped, 0 failed")
    assert all(p.stat().st_mtime_ns == then for p, then in before.items())
    assert run([photos], out, force=True)[1][-1] == "3 written, 0 skipped, 0 failed"
    assert all(p.stat().st_mtime_ns > then for p, then in before.items())
    with pytest.raises(InputError, match="--resume"):
        run([photos], out, force=True, resume=True)


def test_usage_that_cannot_be_meant_is_named_before_any_work(photos, tmp_path):
    a, b = photos / "a 1.png", photos / "sub/b.jpg"
    twin = tmp_path / "twin" / "a 1.png"
    images.write_image(twin, noise(6, 8, 3))
    (tmp_path / "file").touch()
    (tmp_path / "blocked" / "a 1.png").mkdir(parents=True)
    cases = [
        ([a, twin], tmp_path / "out", "output of several inputs"),
        ([a, a], tmp_path / "out", "output of several inputs"),
        ([a], a, "is an input, too"),
        ([a], photos, "is an input, too"),
        ([photos], photos, "is an input, too"),
        ([a, b], tmp_path / "x.png", "name a folder"),
        ([photos], tmp_path / "x.png", "name a folder"),
        ([a], tmp_path / "x.gif", "one of .png"),
        ([a], tmp_path / "file", "neither a folder"),
        ([a], tmp_path / "file" / "x.png", "no folder"),
        ([a], tmp_path / "blocked", "is a folder"),
        ([a, tmp_path / "no.png", tmp_path / "no2.png"], tmp_path / "out", "no2.png"),
    ]
    before = tree(tmp_path)
    for inputs, out, message in cases:
        with pytest.raises(InputError, match=message):
            run(inputs, out, force=True)
    assert tree(tmp_path) == before


def test_outputs_within_the_input_folder_are_no_inputs_next_time(photos):
    out = photos / "large"
    assert run([photos], out)[1][-1].startswith("3 written")
    assert run([photos], out, force=True)[1][-1].startswith("3 written")


def test_one_bad_file_does_not_stop_the_others(photos, tmp_path):
    (photos / "empty.png").touch()
    half = (photos / "sub/b.jpg").read_bytes()
    (photos / "half.jpg").write_bytes(half[: len(half) // 2])
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    images.write_image(photos / "long.png", noise(1, 9000, 3))
    (photos / "long.webp").write_bytes((photos / "long.png").read_bytes())
    code, lines = run([photos], tmp_path / "out")
    assert code == 1
    assert lines[-1] == "4 written, 0 skipped, 4 failed"
    failed = [line for line in lines if line.startswith("failed: ")]
    for name in ("empty.png", "half.jpg", "gone.png", "long.webp"):
        assert sum(name in line for line in failed) == 1
    assert "half.jpg" not in " ".join(tree(tmp_path / "out"))
    assert any("16383" in line for line in failed)


def test_60000_pixels_in_a_row_are_upscaled(tmp_path):
    images.write_image(tmp_path / "a.png", noise(60000, 1, 3))
    assert run([tmp_path / "a.png"], tmp_path / "b.png")[0] == 0
    assert decode.image_size(tmp_path / "b.png") == (120000, 2)
    code, lines = run([tmp_path / "a.png"], tmp_path / "b.jpg")
    assert code == 1
    assert "JPEG ends at 65500 pixels along a side" in lines[0]


def test_what_the_model_or_the_disk_refuses_is_one_line(photos, tmp_path, monkeypatch):
    def refuses(lr, progress=None):
        raise MemoryError

    source = [photos / "a 1.png"]
    code, lines = run(source, tmp_path / "o", refuses)
    assert (code, lines) == (1, [f"failed: {source[0]}: out of memory"])

    def full(path, picture, quality):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upscale.images, "write_picture", full)
    code, lines = run(source, tmp_path / "o")
    assert (code, lines) == (1, [f"failed: {source[0]}: No space left on device"])


def test_interrupting_leaves_no_half_image(photos, tmp_path):
    calls = []

    def interrupted(lr, progress=None):
        calls.append(lr)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return bicubic(lr)

    lines = []
    told = "interrupted after 1 of 3; --resume does the rest"
    with pytest.raises(KeyboardInterrupt, match=told):
        run([photos], tmp_path / "out", interrupted, lines)
    assert len(lines) == 1  # the caller says the rest, once
    assert tree(tmp_path / "out") == ["a 1.png"]
    assert run([photos], tmp_path / "out", resume=True)[0] == 0


@pytest.mark.parametrize("manner", [{}, {"resume": True}, {"force": True}])
def test_what_another_process_wrote_meanwhile_is_replaced_by_force_alone(
    photos, tmp_path, manner
):
    out = tmp_path / "out" / "a 1.png"

    def meanwhile(lr, progress=None):
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            out.write_bytes(b"theirs")
        return bicubic(lr)

    code, lines = run([photos], tmp_path / "out", meanwhile, **manner)
    if manner.get("force"):
        assert code == 0
        assert out.read_bytes() != b"theirs"
    else:
        assert code == 1
        assert f"{out} exists by now" in lines[0]
        assert out.read_bytes() == b"theirs"
        assert len(tree(tmp_path / "out")) == 3  # the others are written


def test_interrupting_while_writing_leaves_no_half_image(photos, tmp_path, monkeypatch):
    def stops(self, file, *args, **options):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stops)
    with pytest.raises(KeyboardInterrupt):
        run([photos], tmp_path / "out")
    assert tree(tmp_path / "out") == []


def test_16_bits_alpha_grey_profile_and_exif_are_kept_and_said(tmp_path):
    for channels in (1, 3):
        pixels = noise(6, 8, channels, dtype=np.uint16)
        alpha = noise(6, 8, dtype=np.uint16, seed=1)
        picture = decode.Picture(pixels, alpha, None, exif_block(1, 8, 6))
        encode.write_picture(tmp_path / "a.png", picture)
        _, lines = run([tmp_path / "a.png"], tmp_path / "b.png", force=True)
        for kept in ("16 x 12", "16-bit kept", "alpha kept", "EXIF kept"):
            assert kept in lines[0]
        large = decode.read_picture(tmp_path / "b.png")
        assert (large.pixels.shape, large.pixels.dtype) == (
            (12, 16, channels),
            "uint16",
        )
        three = np.repeat(pixels, 3, axis=2)[..., :3] if channels == 1 else pixels
        np.testing.assert_array_equal(large.pixels, bicubic(three)[..., :channels])
        assert large.alpha.shape == (12, 16)
    _, lines = run([tmp_path / "a.png"], tmp_path / "b.jpg")
    assert "alpha composed on white (JPEG has none)" in lines[0]
    assert "alpha kept" not in lines[0]


def test_what_describes_a_photograph_goes_through_and_a_second_time_too(tmp_path):
    linear = chunk(b"gAMA", struct.pack(">I", 100000))
    picture = smooth()
    dense = chunk(b"pHYs", struct.pack(">2IB", 11811, 11811, 1))
    title = chunk(b"tEXt", b"Title\0a cat")
    source = tmp_path / "a.png"
    source.write_bytes(png(picture, linear + dense + title))
    for suffix, said, kept in (
        (".png", ("colours by gAMA kept", "text kept"), {"text", "colours"}),
        (".jpg", ("colours by gAMA kept", "text dropped (JPEG has no room"), set()),
        (".tif", ("colours by gAMA kept", "text dropped (TIFF has no room"), set()),
        (".bmp", ("colours by gAMA dropped", "text dropped (BMP has no room"), set()),
    ):
        first, second = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
        _, (line,) = run([source], first)
        for words in said:
            assert words in line
        _, (line,) = run([first], second)
        assert "dropped" not in line
        once, twice = (decode.read_picture(path) for path in (first, second))
        assert once.dpi == pytest.approx((300, 300), rel=0.001)
        assert {name for name in ("text", "colours") if getattr(once, name)} == kept
        assert (once.icc is None) == (suffix == ".bmp")
        for name in ("icc", "exif", "xmp", "text", "dpi", "colours", "chunks"):
            assert getattr(once, name) == getattr(twice, name)


def test_grey_is_the_mean_of_what_three_equal_channels_become():
    def tinted(lr, progress=None):
        return (bicubic(lr).astype(int) // 2 + np.array([0, 1, 4])).astype(np.uint8)

    grey = decode.Picture(noise(5, 6, 1))
    out = photo.upscale_picture(grey, tinted, SCALE).pixels
    three = tinted(np.repeat(grey.pixels, 3, axis=2))
    want = np.rint(three.astype(float).mean(axis=2, keepdims=True))
    np.testing.assert_array_equal(out, want)


def test_no_fringes_come_from_colours_under_transparent_pixels():
    # An orange disc, stored as image editors do: black where nothing is visible.
    y, x = np.mgrid[:24, :24] - 11.5
    alpha = np.clip((8 - np.hypot(y, x)) * 255, 0, 255).astype(np.uint8)
    orange = np.array([250, 140, 20], np.uint8)
    pixels = np.where(alpha[..., None] > 0, orange, 0).astype(np.uint8)
    assert bicubic(pixels).min() < 20  # what would mix into the edge
    large = photo.upscale_picture(decode.Picture(pixels, alpha), bicubic, SCALE)
    assert np.abs(large.pixels.astype(int) - orange).max() <= 1


def test_alpha_is_as_sharp_as_the_image_and_exact_where_it_is_constant():
    def off_by_one(lr, progress=None):
        return np.clip(bicubic(lr).astype(int) + 1, 1, 254).astype(np.uint8)

    alpha = np.zeros((20, 20), np.uint8)
    alpha[:, 10:] = 255
    picture = decode.Picture(noise(20, 20, 3), alpha)
    large = photo.upscale_picture(picture, off_by_one, SCALE).alpha
    assert set(np.unique(large[:, :16])) == {0}
    assert set(np.unique(large[:, 24:])) == {255}
    want = off_by_one(np.repeat(alpha[..., None], 3, axis=2))[..., 0]
    np.testing.assert_array_equal(large[:, 16:24], want[:, 16:24])
    # Constant alpha is not worth a second pass.
    calls = []

    def counted(lr, progress=None):
        calls.append(lr)
        return bicubic(lr)

    for cover in (0, 99, 255):
        picture = decode.Picture(picture.pixels, np.full((20, 20), cover, np.uint8))
        large = photo.upscale_picture(picture, counted, SCALE)
        assert np.all(large.alpha == cover)
    assert len(calls) == 3


def test_progress_rises_to_one_over_colour_and_alpha():
    shares = []
    picture = decode.Picture(noise(6, 8, 3), noise(6, 8))
    photo.upscale_picture(picture, bicubic, SCALE, shares.append)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1], len(shares)) == (0.25, 1.0, 4)


def test_a_terminal_gets_a_bar_others_only_for_what_takes_long(
    photos, tmp_path, monkeypatch, capsys
):
    run([photos], tmp_path / "a")
    assert capsys.readouterr().err == ""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(upscale.sys, "stderr", screen)
    run([photos], tmp_path / "b")
    assert re.search(r"\[3/3\] c.webp 100 %, 0:0\d left", screen.getvalue())


def test_time_left_is_told_from_the_second_tile_on_and_a_long_wait_before(
    photos, tmp_path, monkeypatch, caplog
):
    """Ten seconds a tile after a first one that compiles; two tiles a picture."""
    now = [0.0]
    monkeypatch.setattr(upscale.time, "monotonic", lambda: now[0])
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(upscale.sys, "stderr", screen)

    def slow(lr, progress=None):
        for done in (1, 2):
            now[0] += 10 if now[0] else 60
            sleep(0.11)  # the bar is drawn ten times a second
            progress(done, 2)
        return bicubic(lr)

    caplog.set_level("INFO", "btsrn")
    monkeypatch.setattr(upscale.logger, "propagate", True)
    run([photos], tmp_path / "out", slow)
    shown = re.findall(r"\[./3\] \S.*?\S %(?:, \S+ left)?", screen.getvalue())
    assert shown[0] == "[1/3] a 1.png 17 %"  # no rate is known
    assert "[1/3] a 1.png 33 %, 0:40 left" in shown
    assert "[3/3] c.webp 83 %, 0:10 left" in shown
    assert set(caplog.messages) == {"0.0 megapixels at x2: about 60 s"}


@pytest.mark.parametrize(
    ("output", "size"),
    [
        ({"factor": 1.5}, (9, 12)),
        ({"factor": 1.2}, (7, 10)),
        ({"width": 11}, (8, 11)),
        ({"height": 7}, (7, 9)),
        ({"factor": 2}, (12, 16)),
    ],
)
def test_any_size_up_to_the_scale_is_the_enlarged_picture_shrunk(
    tmp_path, output, size
):
    pixels, alpha = noise(6, 8, 3), noise(6, 8, seed=1)
    encode.write_picture(tmp_path / "a.png", decode.Picture(pixels, alpha))
    wanted = jobs.Output(**output)
    assert run([tmp_path / "a.png"], tmp_path / "b.png", output=wanted)[0] == 0
    got = decode.read_picture(tmp_path / "b.png")
    large = photo.upscale_picture(decode.Picture(pixels, alpha), bicubic, SCALE)
    assert got.pixels.shape[:2] == got.alpha.shape == size
    np.testing.assert_array_equal(got.pixels, imresize(large.pixels, size))
    np.testing.assert_array_equal(got.alpha, imresize(large.alpha, size))


def test_a_size_takes_the_next_scale_that_reaches_it(photos, tmp_path):
    """Of a family of models; 16 bits are kept by the resizing, too."""
    asked = []

    def open_model(scale, quality):
        asked.append(scale)
        return models.bicubic_model(scale)

    images.write_image(tmp_path / "deep.png", noise(6, 8, 3, dtype=np.uint16))
    for width, scale in ((9, 2), (16, 2), (17, 3), (31, 4)):
        work = jobs.plan_files(
            [tmp_path / "deep.png"], tmp_path / f"{width}.png", jobs.Output(width=width)
        )
        assert upscale.upscale_files(work, open_model, log=asked.append) == 0
        assert asked[0] == scale
        asked.clear()
        made = decode.read_picture(tmp_path / f"{width}.png").pixels
        assert (made.shape[1], made.dtype) == (width, np.uint16)
    for width in (8, 33):
        work = jobs.plan_files([tmp_path / "deep.png"], tmp_path / "o.png")
        work = dataclasses.replace(work, output=jobs.Output(width=width))
        assert upscale.upscale_files(work, open_model, log=asked.append) == 1
    assert "deep.png: it has 8 x 6 pixels: that would not be enlarging" in asked[0]
    assert "8 x 6 pixels, 4.12 times larger: at most 4 times" in asked[-1]
    assert not (tmp_path / "o.png").exists()


def test_outputs_take_a_format_and_a_quality(photos, tmp_path):
    out = tmp_path / "out"
    assert run([photos], out, output=jobs.Output(format="webp"))[0] == 0
    assert tree(out) == ["a 1.webp", "sub/b.webp", "sub/deep/c.webp"]
    images.write_image(tmp_path / "p.png", noise(64, 64, 3))
    sizes = []
    for name, quality in (("a.webp", None), ("b.webp", 90), ("c.webp", 20)):
        output = jobs.Output(quality=quality)
        assert run([tmp_path / "p.png"], tmp_path / name, output=output)[0] == 0
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]  # lossless only without
    run([tmp_path / "p.png"], tmp_path / "q.jpg", output=jobs.Output(quality=30))
    with Image.open(tmp_path / "q.jpg") as jpeg:
        luma = jpeg.quantization[0]
    assert luma[0] == (16 * 167 + 50) // 100  # libjpeg's scaling of its table at 30
    for given, message in (
        ({"format": "gif"}, "--format gif: one of png"),
        ({"quality": 0}, "--quality 0: 1 to 100"),
        ({"factor": 5.0}, "--factor 5"),
        ({"factor": 1.0}, "--factor 1"),
        ({"width": 0}, "--width 0"),
        ({"width": 9, "factor": 2.0}, "--factor and --width: give one"),
    ):
        with pytest.raises(InputError, match=message):
            jobs.Output(**given)
    for given, message in (
        ({"format": "webp"}, "--format webp, but .*x.png"),
        ({"quality": 90}, "--quality is for JPEG and WebP"),
    ):
        with pytest.raises(InputError, match=message):
            run([photos / "a 1.png"], tmp_path / "x.png", output=jobs.Output(**given))


def test_a_folder_that_may_not_be_written_to_is_named(permissions_count):
    images.write_image(pathlib.Path("a.png"), noise(4, 4, 3))
    pathlib.Path("closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match="no folder to write in"):
        run(["a.png"], "closed/out")


def test_what_may_not_be_read_does_not_stop_the_others(permissions_count):
    for name in ("a.png", "b.png", "closed/c.png"):
        images.write_image(pathlib.Path("in", name), noise(4, 4, 3))
    pathlib.Path("in/a.png").chmod(0)
    pathlib.Path("in/closed").chmod(0)
    code, lines = run(["in"], "out")
    pathlib.Path("in/closed").chmod(0o700)
    assert code == 1
    assert lines[0] == "failed: cannot read folder in/closed: Permission denied"
    assert lines[1] == "failed: cannot read in/a.png: permission denied"
    assert lines[-1] == "1 written, 0 skipped, 2 failed"


def test_pictures_of_other_formats_in_a_folder_are_passed_over_and_named(
    photos, tmp_path
):
    (photos / "sub/moves.GIF").write_bytes(b"GIF89a")
    (photos / "notes.txt").write_text("no picture")
    code, lines = run([photos], tmp_path / "out")
    assert (code, len(lines)) == (0, 5)
    assert lines[0] == f"passed over, of other formats: {photos}/sub/moves.GIF"


def test_names_that_are_no_text_or_of_two_lines_are_one_printable_line(tmp_path):
    folder = tmp_path / "in"
    for name in (b"caf\xe9.png", b"two\nlines.png", b"red\x1b[31m.png"):
        images.write_image(folder / os.fsdecode(name), noise(4, 4, 3))
    code, lines = run([folder], tmp_path / "out")
    assert (code, len(lines)) == (0, 4)
    assert all(line.isprintable() for line in lines)
    assert any(r"two\nlines.png" in line for line in lines)
    assert len(os.listdir(tmp_path / "out")) == 3


def damaged(data, rng):
    """Bytes of an image: cut short, flipped, overwritten, doubled or moved."""
    data = bytearray(data)
    kind, at = rng.integers(5), int(rng.integers(len(data)))
    if kind == 0:
        del data[at:]
    elif kind == 1:
        for i in rng.integers(len(data), size=rng.integers(1, 12)):
            data[i] ^= 1 << rng.integers(8)
    elif kind == 2:  # headers decide most: sizes, counts, offsets
        at = int(rng.integers(min(len(data), 160)))
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff"])
    elif kind == 3:
        data[at:at] = rng.bytes(int(rng.integers(1, 64)))
    else:
        del data[at : at + int(rng.integers(1, 64))]
    return bytes(data)


@contextlib.contextmanager
def at_most(seconds):
    """A time-out: a damaged header may announce a picture of gigabytes."""

    def late(*_):
        pytest.fail(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_500_damaged_files_each_give_an_image_or_one_line(tmp_path, capfd):
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:24, :30]
    smooth = np.stack([8 * x, 10 * y, 4 * (x + y)], axis=2).astype(np.uint8)
    alpha = noise(24, 30)
    originals = []
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"):
        for picture in (
            decode.Picture(smooth, exif=exif_block()),
            decode.Picture(smooth[..., :1], alpha, exif=exif_block()),
            decode.Picture(smooth.astype(np.uint16) * 257, alpha.astype(np.uint16)),
        ):
            encode.write_picture(tmp_path / name, picture)
            originals.append(
                (pathlib.Path(name).suffix, (tmp_path / name).read_bytes())
            )
    palette = io.BytesIO()
    Image.fromarray(smooth).quantize(16).save(palette, "PNG", transparency=3)
    originals.append((".png", palette.getvalue()))
    plain = io.BytesIO()
    Image.fromarray(smooth).save(plain, "TIFF")
    originals.append((".tif", plain.getvalue()))

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    suffixes = [suffix for suffix, _ in originals]
    for k in range(500):
        suffix, data = originals[k % len(originals)]
        if k % 10 == 0:
            suffix = suffixes[rng.integers(len(suffixes))]
        (folder / f"{k}{suffix}").write_bytes(damaged(data, rng))
    with at_most(120):
        code, lines = run([folder], out)
    assert capfd.readouterr() == ("", "")  # C libraries write past Python
    assert code == 1
    failed = [line for line in lines[:-1] if line.startswith("failed: ")]
    written = images.find_images(out)
    assert len(failed) + len(written) == 500
    assert lines[-1] == f"{len(written)} written, 0 skipped, {len(failed)} failed"
    assert min(len(failed), len(written)) > 50  # both ways are walked
    assert not any("\n" in line for line in lines)
    assert [p for p in out.rglob("*") if p not in written] == []
    for path in written:
        decode.read_picture(path)  # whole, too
