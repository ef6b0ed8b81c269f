"""The web page as files: what is refused before anything is computed, what is replaced,
and what the page is told."""

import base64
import hashlib
import importlib.util
import json
import pathlib
import shutil

import pytest
from helpers import runs

from btsrn_jax import cli
from btsrn_jax.errors import InputError
from btsrn_jax.export import web_page, web_plan, write

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")),
    reason="onnx and onnxruntime are not installed (the extra onnx)",
)
ODD = (
    "50%, #1 ?\udcff & <b>"  # of a folder: no address and no text can hold it as it is
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A run of x2, and an exported model of x3 in a folder of an odd name."""
    folder = tmp_path_factory.mktemp("models")
    runs.make(folder / "tiny-x2")
    runs.make(folder / "run", scale=3)
    write.export_model(str(folder / "run"), folder / "x3", ["safetensors"], log=str)
    (folder / "x3").rename(folder / ODD)
    return [str(folder / "tiny-x2"), str(folder / ODD)]


@pytest.fixture(scope="module")
def page(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page"
    web_page.export_page(models[::-1], out, log=lambda line: None)
    return out


def test_the_page_is_told_every_model_and_the_digest_of_every_file(page):
    about = json.loads((page / "models.json").read_text())
    first, second = about["models"]
    assert (first["name"], first["scale"], first["file"]) == (
        "tiny-x2",
        2,
        "models/x2.onnx",
    )
    assert second["name"] == ODD.replace("\udcff", "\N{REPLACEMENT CHARACTER}")
    for model in about["models"]:
        digest = hashlib.sha384((page / model["file"]).read_bytes()).digest()
        assert model["integrity"] == f"sha384-{base64.b64encode(digest).decode()}"
    runtime = about["runtime"]
    assert runtime["base"].startswith("https://")
    assert f"@{runtime['version']}/" in runtime["base"]
    assert not (page / "runtime").exists()
    page_of_docs = pathlib.Path(__file__).parents[2] / "docs" / "web.md"
    assert (
        f"npm pack onnxruntime-web@{runtime['version']}\n" in page_of_docs.read_text()
    )
    files = {
        name: digest
        for kind in runtime["files"].values()
        for name, digest in kind.items()
    }
    assert len(files) == 6
    for digest in files.values():
        assert len(base64.b64decode(digest.removeprefix("sha384-"))) == 48


def btsrn(capsys, *args):
    with pytest.raises(SystemExit) as end:
        cli.main([str(arg) for arg in args])
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


WEB = "--formats=web"


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("{x2}", "btsrn-x3", "out"), "only --formats web takes several models"),
        (("{x2}", "btsrn-x3", "out", "--formats=onnx"), "only --formats web"),
        (("{x2}", "out", "--formats=onnx,web"), "a folder of its own: name no other"),
        (("{x2}", "out", "--formats=wep"), "orbax, web"),
        (("{x2}", "out", "--runtime-files=."), "is for --formats web alone"),
        (("{x2}", "{x2}", "out", WEB), "are both x2"),
        (("{x2}", "nothing", "out", WEB), "no model 'nothing'"),
        (("{x2}", "out", WEB, "--half"), "--half is for models"),
        (("{x2}", "out", WEB, "--data-licence=CC0"), "--data-licence is for models"),
        (("{x2}", "out", WEB, "--runtime-files=no"), "npm's onnxruntime-web 1"),
        (("{x2}", "out", WEB, "--runtime-files=changed"), "is not that of"),
        (("{x2}", "mine", WEB), "mine exists; --force replaces a page"),
        (("{x2}", "mine", WEB, "--force"), "it holds notes.txt): not replaced"),
        (("{x2}", "deep", WEB, "--force"), "it holds models/mine.onnx): not replaced"),
        (("{x2}", "file", WEB, "--force"), "is no folder: not replaced"),
        (("{x2}", "file/out", WEB), "is no folder to write in"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    capsys, monkeypatch, tmp_path, models, args, part
):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "deep/models", "changed"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine" / "notes.txt").touch()
    (tmp_path / "deep" / "models" / "mine.onnx").touch()
    (tmp_path / "file").touch()
    for name in web_plan.DIGESTS:
        (tmp_path / "changed" / name).write_text("something else")
    before = sorted(tmp_path.rglob("*"))
    args = [arg.format(x2=models[0]) for arg in args]
    code, out, err = btsrn(capsys, "export", *args)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert part in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_is_replaced_by_force_alone_and_as_a_whole(
    capsys, models, page, tmp_path
):
    out = tmp_path / "page"
    shutil.copytree(page, out)
    code, _, err = btsrn(capsys, "export", models[0], out, WEB, "--force")
    assert code == 0, err
    assert [p.name for p in (out / "models").iterdir()] == ["x2.onnx"]
    assert [p.name for p in tmp_path.iterdir()] == ["page"]


def test_a_network_without_a_form_in_onnx_is_named(monkeypatch, models, tmp_path):
    from btsrn_jax import network

    monkeypatch.setattr(network, "missing_onnx_form", lambda model: "no form of it")
    with pytest.raises(InputError, match="tiny-x2: no form of it"):
        web_page.export_page(models[:1], tmp_path / "page")
    assert list(tmp_path.iterdir()) == []
