"""The `btsrn` command as a user types it: output, exit codes, mistakes in one line."""

import signal

import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from btsrn_jax import cli, resize


def btsrn(capsys, *args):
    """(exit code, standard output, standard error) of the command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


def test_upscale_writes_what_the_model_gives(capsys, tmp_path):
    tiny.write_photos(tmp_path / "in")
    source, target = tmp_path / "in", tmp_path / "out"
    command = ("upscale", source, target, "--model", "bicubic")
    before = signal.getsignal(signal.SIGTERM)
    code, _, err = btsrn(capsys, *command)
    cleans_up = signal.signal(signal.SIGTERM, before)
    assert cleans_up is signal.default_int_handler  # as after Ctrl-C
    assert code == 0
    assert err.startswith("bicubic: enlarging by 2\n")
    for path in source.iterdir():
        lr, sr = (np.asarray(Image.open(p)) for p in (path, target / path.name))
        np.testing.assert_array_equal(sr, resize.imresize(lr, 2))
    code, _, err = btsrn(capsys, *command)
    assert code == 2
    assert "exists" in err


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("upscale", "nowhere.png", "out.png", "--model=bicubic"), "nowhere.png"),
        (("upscale", "in", "out", "--model=nothing"), "no model 'nothing'"),
        (("upscale", "in", "out", "--scale=7"), "scale 7"),
        (
            ("evaluate", "--model=bicubic", "--sets=nowhere"),
            "no such file or folder: nowhere",
        ),
        (("evaluate", "--model=bicubic", "--sets=in", "--scale=2,5"), "'5'"),
        (("evaluate", "--model=bicubic", "--sets=in", "--protocol=x"), "'x'"),
        (("evaluate", "--model=nothing", "--sets=in"), "no model 'nothing'"),
        (("prepare", "div2k/nothing"), "bicubic_x2"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys, monkeypatch, tmp_path, args, part
):
    tiny.write_photos(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    code, out, err = btsrn(capsys, *args)
    assert code == 2
    assert out == ""
    *about, error = err.splitlines()
    assert error.startswith("error: ")
    assert about == []
    assert part in error
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("args", [(), ("nonsense",), ("evaluate",), ("upscale", "one")])
def test_bad_usage_is_exit_code_2(capsys, args):
    code, _, err = btsrn(capsys, *args)
    assert code == 2
    assert "usage: btsrn" in err


def test_help_of_every_command_is_whole_sentences():
    (commands,) = cli.build_parser()._subparsers._group_actions
    for parser in commands.choices.values():
        texts = [action.help for action in parser._actions[1:]]
        for text in filter(None, (parser.description, *texts)):
            assert text[0].isupper() or text[0].isdigit(), text
            assert text.rstrip().endswith("."), text
