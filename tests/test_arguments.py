"""Claims about command lines: where paths lead, and what is said of a mistake."""

import pathlib

import pytest
from helpers import runs, tiny

from btsrn_jax import arguments, cli, inference
from btsrn_jax import main as entry
from btsrn_jax.errors import InputError

X4 = ("--config", str(tiny.ROOT / "configs/x4.py"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home directory with a set of photos and a run."""
    folder = tmp_path_factory.mktemp("home")
    tiny.write_photos(folder / "set", [(40, 60), (24, 28)])
    runs.make(folder / "run", steps=[(4, 30.0)])
    return folder


@pytest.fixture
def at_home(home, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    yield home
    assert list(tmp_path.iterdir()) == []  # no folder called ~


def btsrn(capsys, *args):
    """(exit code, standard output, standard error) of a command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(args))
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


def test_evaluate_finds_and_writes_in_the_home_directory(at_home, capsys):
    """Lists with spaces after their commas, and all protocols."""
    args = ["--model", "~/run, bicubic", "--sets=~/set, ~/set/../set/.", "--scale=2, 2"]
    code, _, err = btsrn(capsys, "evaluate", *args)
    twice = f"error: two sets are called set: {at_home}/set is given twice, and figures"
    assert (code, err) == (2, f"{twice} would be mixed up\n")
    args[2:] = ["--sets=~/set", "--protocol", "all", "--csv=~/a/f.csv"]
    code, out, err = btsrn(capsys, "evaluate", *args, "--save-images=~/images")
    assert code == 0, err
    for protocol in ("ntire", "benchmark", "modern"):
        assert f"| {protocol:9} | run + ensemble" in out
    assert (at_home / "a" / "f.csv").exists()
    assert (at_home / "images/set/x2/run/photo0.png").exists()


def test_upscale_finds_and_writes_in_the_home_directory(at_home, capsys):
    args = "upscale", "~/set", "~/large", "--model=bicubic"
    assert btsrn(capsys, *args)[0] == 0
    assert len(list((at_home / "large").iterdir())) == 2


@pytest.mark.parametrize("name", ["m.safetensors", "deep/m.onnx"])
def test_export_writes_one_file_whole_and_replaces_it_by_force(at_home, capsys, name):
    pytest.importorskip("onnxruntime")
    args = "export", "~/run", f"~/{name}"
    code, out, err = btsrn(capsys, *args)
    assert code == 0, err
    file = at_home / name
    assert out.endswith(f"{file}: written\n")
    assert "largest difference" in out
    content = file.read_bytes()
    code, _, err = btsrn(capsys, *args)
    assert (code, err) == (2, f"error: {file} exists; --force replaces it\n")
    formats = f"--formats={file.suffix[1:]}, "
    assert btsrn(capsys, *args, "--force", formats)[0] == 0
    assert file.read_bytes() == content
    assert not [p for p in file.parent.iterdir() if p.name.startswith(f".{file.name}")]


@pytest.mark.parametrize(
    ("out", "more", "part"),
    [
        ("m.pth", (), "files for PyTorch are not written"),
        ("m.onnx", ("--formats=onnx,orbax",), "is one file, in the format onnx"),
        ("m.ONNX", ("--formats=safetensors",), "is one file, in the format onnx"),
        ("set.onnx", ("--force",), "is no file: not replaced"),
        ("x", ("--formats", ","), "--formats: no name"),
    ],
)
def test_an_export_that_cannot_be_meant_is_one_line(at_home, capsys, out, more, part):
    (at_home / "set.onnx").mkdir(exist_ok=True)
    code, said, err = btsrn(capsys, "export", "~/run", f"~/{out}", *more)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert part in err


def test_report_finds_and_writes_in_the_home_directory(at_home, capsys):
    args = "--out=~/report", "--sets", "~/set,", "--images", "photo1, ~/set/photo0.png"
    code, out, err = btsrn(capsys, "report", "~/run", *args)
    assert code == 0, err
    assert out == f"{at_home}/report/index.html\n"


def test_a_config_names_places_in_the_home_directory(at_home):
    flags = {
        "data.source": "folder",
        "data.hr_dir": "~/set",
        "data.lr_dir": "~/lr",
        "data.root": "~/d",
        "train.init_from": "~/run",
        "eval.sets": "~/set, samples,~/my set",
    }
    given = [f"--config.{name}={value}" for name, value in flags.items()]
    found = entry.parse(["main.py", *X4, "--workdir=~/w", *given])
    data = found.config.data
    assert [data.hr_dir, data.lr_dir, data.root, found.config.train.init_from] == [
        f"{at_home}/{name}" for name in ("set", "lr", "d", "run")
    ]
    assert found.config.eval.sets == (f"{at_home}/set", "samples", f"{at_home}/my set")
    assert found.workdir == at_home / "w"
    (at_home / "x4.py").write_text(pathlib.Path(X4[1]).read_text())
    assert entry.parse(["main.py", "--config=~/x4.py"]).config.scale == 4
    with pytest.raises(InputError, match=r"^config.data.root: ~no-such-user/x: no"):
        entry.parse(["main.py", *X4, "--config.data.root=~no-such-user/x"])


def test_python_finds_models_in_the_home_directory(at_home):
    assert inference.load_model("~/run").scale == 2


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ("--batch_size=8", "did you mean --config.train.batch_size=8?"),
        ("--batch-size 8", "did you mean --config.train.batch_size=8?"),
        ("--train.batch_size=8", "did you mean --config.train.batch_size=8?"),
        ("batch_size=8", "did you mean --config.train.batch_size=8?"),
        ("--config.batch_size=8", "Give --config.train.batch_size=8"),
        ("--config.data.batch_size=8", "Give --config.train.batch_size=8"),
        ("--config.train.patches=96", "Give --config.train.patch=96"),
        ("--dtype=float32", "--config.model.dtype=float32 or --config.eval.dtype="),
        ("--workdri=x", "did you mean --workdir=x?"),
        ("--flug", "--flug is not a flag; --help lists all"),
        ("--config.train.steps", "config.train.steps is '': a whole number"),
    ],
)
def test_a_flag_of_training_that_is_none_suggests_the_one_that_is_meant(args, part):
    with pytest.raises(InputError) as error:
        entry.parse(["main.py", *X4, *args.split()])
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (
            "upscale a b --forse",
            "btsrn upscale takes no option --forse; did you mean --f",
        ),
        ("evaluate --modle=x --model=x --sets=y", "did you mean --model?"),
        ("models now", "btsrn models takes no argument now"),
        ("upscale a b --scale=2,3", "--scale: invalid int value: '2,3'"),
        ("upscale ~no-such-user/a b", "IN: ~no-such-user/a: no home directory"),
        ("info --config=x --config.train.steps=9", "after a lone --, as in btsrn info"),
        ("info --config=x --steps=9", "--config FILE -- --config.train.steps=9"),
        ("upscale a.pgn b", "no such file or folder: a.pgn; did you mean a.png?"),
        ("evaluate --model=btsrn-x5 --sets=samples", "did you mean btsrn-x"),
        ("evaluate --model=./modle --sets=samples", "did you mean model?"),
        ("evaluate --model=bicubic --sets=,", "--sets: an empty name"),
        ("evaluate --model=, --sets=samples", "--model: no model is named"),
        (
            "evaluate --model=bicubic --sets=samples --protocol=,",
            "--protocol: an empty",
        ),
        ("bench infer --side=2,x", "--side '2,x': a whole number, or several"),
        ("prepare div2k/bicubic_x2 --zips=modle", "did you mean model?"),
    ],
)
def test_a_mistake_in_a_command_is_one_line_with_what_is_near(
    capsys, monkeypatch, tmp_path, args, part
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    (tmp_path / "model").mkdir()
    code, out, err = btsrn(capsys, *args.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert part in err


def test_a_command_that_is_none_suggests_the_nearest(capsys):
    code, _, err = btsrn(capsys, "upscal", "a", "b")
    assert code == 2
    assert "usage: btsrn" in err
    assert err.endswith("did you mean upscale?\n")


def test_sets_need_no_quotes(monkeypatch):
    flags = ["m", "--config.eval.sets=a b,~/c", "--config.eval.sets", "d/e", "('f',)"]
    assert arguments.quote_sets(flags) == [
        "m",
        "--config.eval.sets=('a b,~/c',)",
        "--config.eval.sets",
        "('d/e',)",
        "('f',)",
    ]
