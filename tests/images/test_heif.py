"""AVIF and HEIC: read where they can be, and said what to do where not."""

import importlib.util
import io
import pathlib
import struct

import numpy as np
import pytest
from helpers.photos import noise
from PIL import Image, features

from btsrn_jax.errors import InputError
from btsrn_jax.images import decode, encode, heif
from btsrn_jax.images import files as images
from btsrn_jax.inference import jobs, upscale

needs_avif = pytest.mark.skipif(
    not features.check("avif"), reason="this Pillow was built without AVIF"
)
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


@needs_avif
def test_avif_is_read_upright_whatever_its_name(tmp_path):
    pixels = noise(20, 30, 3)
    tags = Image.Exif()
    tags[0x0112] = 6
    best = {"quality": 100, "subsampling": "4:4:4"}
    for name, more in (("a.avif", {}), ("turned.jpg", {"exif": tags})):
        Image.fromarray(pixels).save(tmp_path / name, "AVIF", **best, **more)
    plain = decode.read_picture(tmp_path / "a.avif")
    assert plain.pixels.shape == (20, 30, 3)
    assert np.abs(plain.pixels.astype(int) - pixels).mean() < 20
    turned = decode.read_picture(tmp_path / "turned.jpg")
    assert "read as AVIF, which it is in spite of its name" in turned.notes
    np.testing.assert_array_equal(turned.pixels, np.rot90(plain.pixels, 3))
    assert decode.image_size(tmp_path / "turned.jpg") == (30, 20)


@needs_avif
def test_avif_in_a_folder_becomes_png(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(noise(20, 30, 3)).save(source / "a.avif")
    assert images.find_images(source) == [source / "a.avif"]
    work = jobs.plan_files([source], tmp_path / "out")
    assert [job.target.name for job in work.jobs] == ["a.avif.png"]
    assert work.passed_over == []
    with pytest.raises(InputError, match=r"cannot write .*x\.avif: one of \.png"):
        jobs.plan_files([source / "a.avif"], tmp_path / "x.avif")


@needs_avif
@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ((12, 13), "nclx"),
        ((9, 16), "nclx"),
        ((1, 13), ""),
        ((2, 2), ""),
        ((1, 4), "nclx"),
    ],
)
def test_colours_by_the_codes_of_a_file_are_kept(tmp_path, codes, said):
    """As those of PNG's cICP, of which they are the model."""
    file = io.BytesIO()
    Image.fromarray(noise(20, 30, 3)).save(file, "AVIF")
    before, after = file.getvalue().split(b"colrnclx")
    marked = before + b"colrnclx" + struct.pack(">2H", *codes) + after[4:]
    (tmp_path / "a.avif").write_bytes(marked)
    picture = decode.read_picture(tmp_path / "a.avif")
    assert picture.colours == said
    chunk = b"cICP" + bytes([*codes, 0, 1])
    hdr = codes == (9, 16)  # no profile can say it
    assert (picture.icc is not None) == (bool(said) and not hdr)
    assert encode.write_picture(tmp_path / "a.png", picture) == []
    assert chunk in (tmp_path / "a.png").read_bytes() or not said
    lost = encode.write_picture(tmp_path / "a.jpg", picture)
    assert lost == ["colours by nclx dropped (JPEG has no room for it)"] * hdr


def test_what_cannot_be_decoded_says_what_to_do(tmp_path, monkeypatch):
    """And a folder names its pictures of such a format."""
    monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    files = {"a.heic": HEIC, "b.png": HEIC, "c.avif": HEIC.replace(b"heic", b"avif")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        kind = "AVIF" if name == "c.avif" else "HEIC"
        with pytest.raises(InputError) as error:
            decode.read_picture(tmp_path / name)
        text = str(error.value)
        assert f"{name}: it is {kind}: " in text
        assert "convert it to PNG first" in text
        assert ("pip install 'btsrn-jax[heif]'" in text) == (kind == "HEIC")
    work = jobs.plan_files([tmp_path], tmp_path / "out")
    assert [pathlib.Path(p).name for p in work.passed_over] == ["a.heic", "c.avif"]
    said = []
    upscale.upscale_files(work, None, 2, said.append)
    assert "pip install 'btsrn-jax[heif]' to read HEIC" in said


def test_heic_is_read_where_the_plugin_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = noise(20, 30, 3)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic")
    found = decode.read_picture(tmp_path / "a.heic")
    assert found.pixels.shape == (20, 30, 3)
    assert found.notes == ()
    deep = (noise(20, 30, 3).astype(np.uint16) * 257).tobytes()
    pillow_heif.from_bytes("RGB;16", (30, 20), deep).save(tmp_path / "deep.heic")
    assert decode.read_picture(tmp_path / "deep.heic").notes == (
        "10-bit reduced to 8-bit",
    )
    assert [p.name for p in images.find_images(tmp_path)] == ["a.heic", "deep.heic"]


@pytest.mark.parametrize("content", [b"", b"ftyp", b"\0\0\0\x18ftypisom" + 40 * b"\0"])
def test_other_files_are_none_of_these(content):
    assert heif.find_plugin(io.BytesIO(content), []) is None
