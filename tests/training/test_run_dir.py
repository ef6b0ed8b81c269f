"""Claims about the run directory: whose run it holds."""

import json

import jax
import pytest
from helpers import tiny

from btsrn_jax import mesh
from btsrn_jax.data import Pair
from btsrn_jax.errors import InputError
from btsrn_jax.training import run_dir

PAIRS, SIZES = [Pair("a", None), Pair("b", None)], [(40, 60), (24, 18)]


def test_a_run_that_does_not_say_its_images_or_names_others_is_refused(tmp_path):
    on = mesh.make_mesh(jax.devices()[:1])
    saved = run_dir.open_run(tmp_path, tiny.config(), PAIRS, SIZES, on)
    assert run_dir.open_run(tmp_path, tiny.config(), PAIRS, SIZES, on) == saved
    with pytest.raises(InputError, match="other training images"):
        run_dir.open_run(tmp_path, tiny.config(), PAIRS, SIZES[::-1], on)
    del saved["data_sha256"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="other training images"):
        run_dir.open_run(tmp_path, tiny.config(), PAIRS, SIZES, on)
