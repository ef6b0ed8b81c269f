"""Claims of quantisation.py: the quality of a JPEG file, from its header alone."""

import numpy as np
import pytest
from PIL import Image

from btsrn_jax import images
from btsrn_jax.images import quantisation


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_quality_of_libjpeg_is_read_back(picture, tmp_path, mode):
    file = tmp_path / "photo.png"  # whatever its name says
    for quality in range(1, 101):
        how = {"progressive": quality % 2 == 0, "subsampling": quality % 3}
        picture.convert(mode).save(file, "JPEG", quality=quality, **how)
        found = images.jpeg_quality(file)
        assert found == images.JpegQuality(quality, standard=True)
    assert str(found) == "JPEG of quality 100"


# At the second one a Kodak photograph of half its size has the same error.
PRESETS = {"web_low": 36, "web_medium": 72, "low": 79, "high": 90, "maximum": 94}


@pytest.mark.parametrize("preset", PRESETS)
def test_other_tables_give_the_nearest_quality_and_say_so(picture, tmp_path, preset):
    """Photoshop's, as Pillow has them."""
    picture.save(tmp_path / "a.jpg", qtables=preset)
    found = images.jpeg_quality(tmp_path / "a.jpg")
    assert not found.standard
    assert str(found).endswith("(tables of its own: the nearest)")
    off = 12 if preset == "web_low" else 3
    assert found.value == pytest.approx(PRESETS[preset], abs=off)


def test_tables_near_the_standard_ones_are_of_the_quality_that_they_are_near():
    for quality in (30, 60, 90):
        tables = images.JPEG_TABLES[quality - 1].copy()
        tables[0][-1] += 1
        found = quantisation.quality_of(dict(enumerate(tables)))
        assert found == images.JpegQuality(quality, standard=False)
    assert quantisation.quality_of({}) is None
    assert not quantisation.quality_of({0: [0] * 64}).standard  # damaged


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_files_have_none(picture, tmp_path, format):
    picture.save(tmp_path / "a.jpg", format)
    assert images.jpeg_quality(tmp_path / "a.jpg") is None
