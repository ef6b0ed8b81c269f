"""Claims of the export: one contract in every format, whole directories or none."""

import hashlib
import importlib.util
import json
import pathlib
import re
import shlex
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml
from helpers import runs, tiny

import btsrn_jax
from btsrn_jax import cli, main, trees
from btsrn_jax import config as schema
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import figures
from btsrn_jax.export import formats, hub_metadata, model_card, provenance
from btsrn_jax.export import write as export
from btsrn_jax.inference import weights

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")),
    reason="onnx and onnxruntime are not installed (the extra onnx)",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose best step is 10, with figures; the variables of that step."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    averaged = runs.make(folder, steps=[(10, 31.5), (20, 30.5)])
    runs.write_figures(folder / "validation.csv", 31.5)
    runs.write_figures(folder / "older.csv", 99.0, age=3600)
    return folder, averaged[10]


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """That run exported in every format; its directory and what was said."""
    out, said = tmp_path_factory.mktemp("exports") / "btsrn-tiny", []
    export.export_model(str(run[0]), out, log=said.append)
    return out, said


@needs_onnx
def test_the_exported_onnx_file_computes_the_network_in_onnxruntime(run, exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported[0] / "model.onnx")
    (lr_info,), (sr_info,) = session.get_inputs(), session.get_outputs()
    assert (lr_info.name, lr_info.shape[1]) == ("lr", 3)
    assert (sr_info.name, sr_info.shape[1]) == ("sr", 3)
    for size in runs.SIZES:
        lr = runs.draw(size)
        (sr,) = session.run(None, {"lr": lr.transpose(0, 3, 1, 2)})
        truth = runs.expected(run[1]["params"], lr)
        assert sr.shape == (size[0], 3, 2 * size[1], 2 * size[2])
        np.testing.assert_allclose(sr.transpose(0, 2, 3, 1), truth, atol=2e-6)


def test_orbax_gives_the_parameters_to_whoever_has_orbax(run, exported):
    with ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(exported[0] / "orbax")
    jax.tree.map(np.testing.assert_array_equal, restored, run[1])


def test_a_folder_whose_name_is_a_pattern_is_a_folder(run, tmp_path):
    out = tmp_path / "proj [2026]" / "a*"
    export.export_model(str(run[0]), out, ["orbax", "safetensors"])
    moved = tmp_path.joinpath("proj [2026]").rename(tmp_path / "**")
    assert weights.load_weights(str(moved / "a*")).step == 10
    with ocp.PyTreeCheckpointer() as checkpointer:
        assert checkpointer.restore(moved / "a*" / "orbax").keys() == {"params"}
    with pytest.raises(InputError, match=r"taken for / where arrays"):
        export.export_model(str(run[0]), tmp_path / "a\\b", ["orbax"])


def test_the_best_validated_step_and_its_averaged_weights_are_exported(run, exported):
    out, said = exported
    loaded = weights.load_weights(str(out))
    assert loaded.step == 10
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, run[1])
    why = "step 10, averaged weights, the best by validation: 31.500 dB (modern); 31.50"
    assert any(why in line for line in said)


def test_config_json_holds_hash_and_parity_of_every_file(exported):
    out, said = exported
    about = json.loads((out / "config.json").read_text())
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert about["sha256"].keys() == files - {"config.json", "README.md"}
    for name, digest in about["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert about["scale"] == 2
    assert about["track"] == "bicubic"
    assert about["version"] == btsrn_jax.__version__
    wanted = {"model.safetensors", "model.stablehlo", "orbax"}
    assert wanted <= about["parity"].keys()
    for name, entry in about["parity"].items():
        if entry["by"] == "not run: torch is not installed":
            assert name == "model.pth.safetensors"
            assert any(f"{name} not run: torch" in " ".join(x.split()) for x in said)
            continue
        # Odd; not square; smaller than the halo, which is 2 here.
        assert list(entry["largest_difference"]) == ["1x19x19", "2x12x20", "1x1x1"]
        assert max(entry["largest_difference"].values()) < 1e-5
        assert sum(line.startswith(name) for line in said) == 3


def test_the_card_says_what_the_model_is(exported):
    text = (exported[0] / "README.md").read_text()
    for part in (
        "# btsrn-tiny",
        "astronaut",  # the training data
        "CC0",
        "31.500 dB (modern)",  # validation at the step
        "| Kodak24 | 1      | modern   | 30.00        | 31.50 | 0.9000 | no",
        "step 10, averaged weights, the best by validation: 31.500 dB (modern)",
        "--config configs/x2.py",
        "--config.train.loss=l1",
        "--formats safetensors",
        '"trainingIterations": 10',
        '"architecture": "btsrn"',
        '"date": "2023-11-14"',
        hashlib.sha256((exported[0] / "config.json").read_bytes()).hexdigest(),
    ):
        assert part in text, text


def test_the_card_begins_with_what_the_hugging_face_hub_reads(exported):
    hub = pytest.importorskip(
        "huggingface_hub", reason="the extra [hub] is not installed"
    )
    about = json.loads((exported[0] / "config.json").read_text())
    card = hub.ModelCard.load(exported[0] / "README.md")
    assert card.data.license == "other"
    assert card.data.library_name == "btsrn-jax"
    assert card.data.pipeline_tag == "image-to-image"
    assert {"super-resolution", "btsrn", "x2", "pytorch"} <= set(card.data.tags)
    assert card.data.metrics == ["psnr", "ssim"]
    assert card.data.model_name == about["name"]
    results = {(r.dataset_type, r.metric_type): r for r in card.data.eval_results}
    assert results.keys() == {("Kodak24", "psnr"), ("Kodak24", "ssim")}
    (figure,) = (f for f in about["figures"] if f["model"] != "bicubic")
    for (_, metric), result in results.items():
        assert result.metric_value == figure[metric]
        assert "(modern)" in result.metric_name
        assert result.dataset_name == "Kodak24 x2"
    assert card.text.lstrip().startswith("# btsrn-tiny")
    assert str(tiny.ROOT) not in str(card.data)


def test_the_hubs_index_holds_what_is_known_and_finite():
    figure = {"set": "a: b", "scale": 2, "model": "m", "protocol": "rgb", "images": 1}
    figure |= {"ensemble": 1, "psnr": float("inf"), "ssim": None}
    about = {"name": "m", "scale": 2, "model": {"name": "vdsr"}, "bytes": {}}
    text = hub_metadata.front_matter(about | {"figures": [figure]})
    assert "model-index" not in text
    assert yaml.safe_load(text.strip("-\n"))["tags"][0] == "vdsr"
    figures = [figure | {"psnr": 30.5}, figure | {"model": "bicubic", "psnr": 29.0}]
    figures.append(figure | {"psnr": 28.5, "lr": "other/LR"})
    found = yaml.safe_load(
        hub_metadata.front_matter(about | {"figures": figures}).strip("-\n")
    )
    ((result, other),) = (entry["results"] for entry in found["model-index"])
    assert other["dataset"] == {"type": "a: b", "name": "a: b x2, LR of other/LR"}
    assert [metric["value"] for metric in other["metrics"]] == [28.5]
    assert result["dataset"] == {"type": "a: b", "name": "a: b x2"}
    name = "PSNR in dB (rgb, ensemble of 8)"
    assert result["metrics"] == [{"type": "psnr", "value": 30.5, "name": name}]


@pytest.mark.parametrize("name", weights.released_models())
def test_a_released_models_card_is_that_of_its_config(name):
    folder = weights.RELEASED / name
    text = (folder / "config.json").read_text()
    about = json.loads(text)
    assert model_card.render(about, text) == (folder / "README.md").read_text()
    for file, digest in about["sha256"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
    assert f" btsrn_jax/{folder.parent.name}/{name} " in about["export_command"]


@needs_onnx
def test_openmodeldb_would_take_the_fields_of_the_card(exported):
    """The rules of its src/lib/model-props.ts; tags are among its data/tags.json."""
    text = (exported[0] / "README.md").read_text()
    fields = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    texts = ("name", "author", "license", "description", "date", "architecture")
    assert all(isinstance(fields[name], str) for name in (*texts, "dataset"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", fields["date"])
    assert fields["description"] == fields["description"].strip()
    assert set(fields["tags"]) <= {"general-upscaler", "photo", "research"}
    assert fields["size"] == ["6nf", "3nb"]
    whole = ("scale", "inputChannels", "outputChannels", "trainingIterations")
    for name in (*whole, "trainingBatchSize", "trainingHRSize"):
        assert type(fields[name]) is int
        assert fields[name] >= 1
    for resource, (platform, kind, file) in zip(
        fields["resources"],
        [
            ("pytorch", "safetensors", "model.pth.safetensors"),
            ("onnx", "onnx", "model.onnx"),
        ],
        strict=True,
    ):
        data = (exported[0] / file).read_bytes()
        assert resource == {
            "platform": platform,  # pytorch, onnx or ncnn
            "type": kind,  # pth, safetensors, onnx, ...
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "urls": [],
        }
    assert fields["images"] == []


def test_a_model_is_summed_up_by_one_protocol_beside_bicubic_and_the_paper():
    def figure(name, protocol, psnr, ensemble=0, model="run"):
        return {
            "set": name,
            "scale": 4,
            "model": model,
            "ensemble": ensemble,
            "protocol": protocol,
            "psnr": psnr,
            "ssim": 0.9,
            "images": 5,
        }

    figures = [
        figure("Set5", "ntire", 28.0),
        figure("Set5", "benchmark", 28.41, model="bicubic"),
        figure("Set5", "benchmark", 30.51),
        figure("Set5", "benchmark", 30.61, ensemble=1),
        figure("mine", "benchmark", 31.0),
    ]
    about = {"scale": 4, "model": {"name": "btsrn"}, "figures": figures}
    assert provenance.summary(about) == (
        "30.51 dB on Set5 (benchmark; bicubic 28.41, the paper 31.85),"
        " 31.00 dB on mine (benchmark)"
    )
    assert provenance.summary(about | {"figures": []}) == "no figures"


def test_a_run_that_was_never_validated_gives_its_last_step_and_says_so(tmp_path):
    averaged = runs.make(tmp_path / "run", steps=[(10, None), (20, None)])
    (tmp_path / "run" / "metrics.jsonl").unlink()
    said = []
    out = tmp_path / "out"
    export.export_model(str(tmp_path / "run"), out, ["safetensors"], log=said.append)
    assert "step 20, averaged weights, never validated; no figures" in said[0]
    loaded = weights.load_weights(str(out))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, averaged[20])


def test_a_damaged_evaluation_file_is_named(tmp_path):
    runs.make(tmp_path / "run")
    runs.write_figures(tmp_path / "run" / "figures.csv", 31.0)
    path = tmp_path / "run" / "figures.csv"
    path.write_text(path.read_text().replace("31.000000", "good"))
    with pytest.raises(InputError, match=r"figures\.csv: line \d+ is damaged: .*good"):
        export.export_model(str(tmp_path / "run"), tmp_path / "out", log=str)
    assert not (tmp_path / "out").exists()


def test_figures_older_than_the_checkpoint_are_left_out_and_named(exported):
    out, said = exported
    assert "99.0" not in (out / "config.json").read_text()
    assert any("older.csv is older than step 10" in line for line in said)


def test_no_file_tells_where_it_was_made(exported):
    out, _ = exported
    repository = str(pathlib.Path(btsrn_jax.__file__).parent).encode()
    for path in out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert str(out.parent.parent).encode() not in data, path
            assert repository not in data, path


def test_the_training_command_names_every_field_that_differs(tmp_path):
    config, _ = runs.build(scale=3, bottleneck=5)
    config["data"] |= {"source": "folder", "hr_dir": str(tmp_path / "my photos")}
    command = provenance.training_command(config)
    assert command.startswith("python -m btsrn_jax.main --config configs/x3.py ")
    assert "'--config.data.hr_dir=my photos'" in command
    assert "--config.model.bottleneck=5" in command
    assert "learning_rate" not in command
    assert str(tmp_path) not in command


def test_smaller_copies_are_told_in_the_data_and_in_the_command():
    config, _ = runs.build(scale=2)
    config["data"] |= {"source": "folder", "hr_dir": "train"}
    assert provenance.describe_data(config) == "a folder of images, train"
    config["data"]["smaller_copies"] = [0.75, 0.5]
    told = "a folder of images, train, and smaller copies of them (0.75 and 0.5 of"
    assert provenance.describe_data(config).startswith(told)
    command = provenance.training_command(json.loads(json.dumps(config)))
    assert "'--config.data.smaller_copies=(0.75, 0.5)'" in command


@pytest.mark.parametrize(
    ("file", "argument", "start"),
    [
        ("configs/release.py", "x2,fast", "configs/release.py:x2,fast"),
        ("/opt/btsrn_jax/configs/ablation.py", "norm-batch", "configs/ablation.py:"),
        ("configs/x2.py", None, "configs/x2.py "),
        # The user's own files, one of them named as ours.
        ("/home/me/mine.py", "fast", "configs/x2.py "),
        ("mine/release.py", "night", "configs/x2.py "),
        (None, None, "configs/x2.py "),  # a run of version 0.1.0
    ],
)
def test_the_training_command_starts_from_the_config_that_was_used(
    file, argument, start, monkeypatch
):
    """And whatever it starts from, it leads to the config that was trained."""
    used = start.strip().removesuffix(":")
    used += f":{argument}" if start.endswith(":") else ""
    monkeypatch.chdir(tiny.ROOT)
    flags = ["--config.train.batch_size=5", "--config.train.steps=70"]
    flags += ["--config.data.source=folder", "--config.data.hr_dir=photos"]
    options = main.parse(["main.py", "--config", used, *flags])
    config = schema.resolve_steps(options.config, 1).to_dict()
    if file:
        config |= {"config_file": file, "config_argument": argument}
    command = provenance.training_command(json.loads(json.dumps(config)))
    assert f"--config {start}" in command
    again = main.parse(shlex.split(command)[2:]).config
    assert again.model.to_dict() == config["model"]
    trained = {k: v for k, v in config["train"].items() if "_every" not in k}
    assert {k: again.train[k] for k in trained} == trained
    assert again.data.hr_dir == config["data"]["hr_dir"]
    if used != "configs/x2.py":  # of the recipe nothing is repeated
        assert command.count(" --config.") <= 5


def test_no_config_file_of_the_users_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("mine.py", "x2.py"):
        (tmp_path / "configs" / name).write_text("raise SystemExit('was run')")
        config, _ = runs.build()
        config |= {"config_file": str(tmp_path / "configs" / name)}
        assert "--config configs/x2.py " in provenance.training_command(config)


def test_equal_parameters_give_equal_safetensors_whatever_the_name(exported, tmp_path):
    export.export_model(str(exported[0]), tmp_path / "again", ["safetensors"], log=str)
    first, second = (
        (out / "model.safetensors").read_bytes()
        for out in (exported[0], tmp_path / "again")
    )
    assert first == second


def test_an_exported_model_can_be_exported_again_with_its_history(exported, tmp_path):
    out = tmp_path / "again"
    export.export_model(str(exported[0]), out, ["safetensors"], log=str)
    old, new = (json.loads((p / "config.json").read_text()) for p in (exported[0], out))
    same = ("scale", "model", "track", "step", "averaged", "data", "date")
    assert {key: old[key] for key in same} == {key: new[key] for key in same}
    for before, after in zip(old["figures"], new["figures"], strict=True):
        name = "bicubic" if before["model"] == "bicubic" else "again"
        assert before | {"model": name} == after
    files = ["README.md", "config.json", "figures.csv", "model.safetensors"]
    assert sorted(p.name for p in out.iterdir()) == files


def test_figures_of_every_image_go_along_under_the_models_name(exported):
    folder = exported[0]
    about = json.loads((folder / "config.json").read_text())
    rows = figures.read_csv(folder / "figures.csv")
    means = [row for row in rows if row.image == "mean"]
    assert {row.model for row in rows} == {about["name"], "bicubic"}
    assert len(means) == len(about["figures"])
    for figure in about["figures"]:
        name = "bicubic" if figure["model"] == "bicubic" else about["name"]
        wanted = (figure["set"], figure["protocol"], name, figure["ensemble"])
        keys = [(r.set, r.protocol, r.model, r.ensemble) for r in rows]
        *each, mean = [r for r, key in zip(rows, keys, strict=True) if key == wanted]
        assert len(each) == figure["images"]
        assert sum(r.psnr for r in each) / len(each) == pytest.approx(
            mean.psnr, abs=1e-5
        )


def test_the_words_of_whoever_knows_the_data_replace_ours(exported, tmp_path):
    about = export.export_model(
        str(exported[0]),
        tmp_path / "a",
        ["safetensors"],
        data="Ten photographs",
        data_licence="CC0",
        log=str,
    )
    assert about["export_command"].endswith(
        "--data 'Ten photographs' --data-licence CC0"
    )
    assert (about["data"], about["data_licence"]) == (
        "Ten photographs",
        "CC0",
    )
    assert "images: Ten photographs\n" in (tmp_path / "a" / "README.md").read_text()


def test_an_artifact_that_differs_fails_the_export_and_leaves_nothing(
    exported, tmp_path, monkeypatch, capsys
):
    """A writer that puts 2e-4 on one bias, out of three formats the second."""
    file, write, read = formats.FORMATS["stablehlo"]

    def slightly_wrong(source, path):
        arrays = trees.flatten(source.variables)
        arrays["params/out/bias"] = arrays["params/out/bias"] + np.float32(2e-4)
        write(source._replace(variables=trees.nest(arrays)), path)

    monkeypatch.setitem(formats.FORMATS, "stablehlo", (file, slightly_wrong, read))
    chosen = "--formats=safetensors,stablehlo,orbax"
    with pytest.raises(SystemExit) as exit:
        cli.main(["export", str(exported[0]), str(tmp_path / "a" / "out"), chosen])
    assert exit.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: model.stablehlo differs from the network by 2.0e-04")
    assert said.count("\n") == 1
    assert list((tmp_path / "a").iterdir()) == []


def test_a_network_that_gives_nan_is_not_exported(tmp_path):
    config, model = runs.build()
    variables = runs.noise(model)
    variables["params"]["out"]["bias"][1] = np.nan
    out = tmp_path / "nan"
    out.mkdir()
    (out / "model.safetensors").write_bytes(weights.weights_to_bytes(variables))
    config = {"scale": 2, "model": config["model"]}
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(export.ParityError, match="differs from the network by inf"):
        export.export_model(str(out), tmp_path / "out", ["safetensors"], log=str)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nan"]


def test_an_existing_directory_is_refused_and_replaced_by_force(exported, tmp_path):
    out, source = tmp_path / "out", str(exported[0])
    export.export_model(source, out, ["safetensors", "orbax", "torch"], log=str)
    with pytest.raises(InputError, match="out exists; --force"):
        export.export_model(source, out, ["safetensors"], log=str)
    assert (out / "orbax").is_dir()
    export.export_model(source, out, ["safetensors"], force=True, log=str)
    names = ["README.md", "config.json", "figures.csv", "model.safetensors"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert weights.load_weights(str(out)).step == 10
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_of_two_exports_into_one_directory_none_is_lost_without_force(
    exported, tmp_path, force
):
    """The other one ends while this one is at work."""
    out, source = tmp_path / "out", str(exported[0])

    def other(line):
        if "largest difference" in line and not out.exists():
            export.export_model(source, out, ["orbax"], log=str)

    if force:
        export.export_model(source, out, ["safetensors"], force=True, log=other)
    else:
        with pytest.raises(InputError, match="out exists by now"):
            export.export_model(source, out, ["safetensors"], log=other)
    assert (out / "orbax").exists() is not force
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("strange", ["holiday.jpg", "checkpoints"])
def test_force_replaces_nothing_but_an_exported_model(exported, tmp_path, strange):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / strange).write_text("dear to me")
    with pytest.raises(InputError, match=f"it holds {strange}"):
        export.export_model(str(exported[0]), tmp_path / "out", force=True, log=str)
    assert (tmp_path / "out" / strange).read_text() == "dear to me"


def test_without_onnx_the_others_are_written_and_a_word_is_said(
    exported, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    said = []
    export.export_model(str(exported[0]), tmp_path / "out", log=said.append)
    assert any("pip install 'btsrn-jax[onnx]'" in line for line in said)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "model.onnx" not in names
    assert {"model.safetensors", "model.stablehlo", "orbax"} <= names
    with pytest.raises(InputError, match=r"pip install 'btsrn-jax\[onnx\]'"):
        export.export_model(str(exported[0]), tmp_path / "b", ["onnx"], log=str)


def test_a_users_mistake_is_one_line(exported, tmp_path, capsys):
    for args, part in (
        ([str(exported[0]), str(tmp_path / "a"), "--formats=onix"], "'onix'"),
        (["nowhere", str(tmp_path / "a")], "no model 'nowhere'"),
        (["bicubic", str(tmp_path / "a")], "bicubic has no weights"),
    ):
        with pytest.raises(SystemExit) as exit:
            cli.main(["export", *args])
        assert exit.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert part in said


def test_models_lists_released_weights_with_figures_and_data(
    exported, monkeypatch, capsys
):
    monkeypatch.setattr(weights, "RELEASED", exported[0].parent)
    with pytest.raises(SystemExit) as exit:
        cli.main(["models"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert "btsrn-tiny  x2  31.50 dB on Kodak24 (modern; bicubic 30.00)" in said
    assert "10 steps (the paper: 290,000) on photographs that come with" in said
