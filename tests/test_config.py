"""Claims of fields.py and config.py: the table, its rules, and every config file."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from btsrn_jax import config as schema
from btsrn_jax import schedules
from btsrn_jax.errors import InputError
from btsrn_jax.fields import FIELDS, Field, Range, Role
from btsrn_jax.network import btsrn as model

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FILES = {
    "x2.py": (None, "bicubic", "unknown"),
    "x3.py": (None, "bicubic", "unknown"),
    "x4.py": (None, "bicubic", "unknown"),
    "quickstart.py": (None,),
    "release.py": ("x2", "x3", "x4", "x2,fast", "x3,fast", "x4,fast"),
    "photo.py": ("x2", "x3", "x4"),
}


def load(file, arg=None):
    spec = importlib.util.spec_from_file_location("config_file", CONFIGS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg) if arg else module.get_config()


def changed(**values):
    """Returns the defaults with some fields changed, such as changed(train_steps=3)."""
    config = schema.defaults()
    for name, value in values.items():
        section, _, field = name.partition("_")
        if section in config and field:
            config[section][field] = value
        else:
            config[name] = value
    return config


def message(config, devices=1):
    with pytest.raises(InputError) as error:
        schema.validate(config, devices)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_explained_in_help_and_page_and_keeps_its_own_rule(name):
    field, text, page = FIELDS[name], schema.to_help(), schema.to_markdown()
    assert field.help.endswith(".")
    assert f"  --config.{name}=" in text
    assert field.help in text.replace("\n      ", " ")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert field.help in row
    assert field.describe_allowed() in row
    if field.default is not None and field.allowed:
        known = field.allowed
        if isinstance(known, Range):
            limits = field.default if field.type is tuple else [field.default]
            assert all(known.low <= limit <= known.high for limit in limits)
        else:
            assert field.default in known


def test_help_shows_default_and_choices_and_wraps():
    lines = schema.to_help().splitlines()
    assert max(map(len, lines)) <= 80
    at = lines.index("  --config.model.block=pconv")
    kinds = "One of pconv, pixelcnn, gated,\n      gated_pp."
    shown = "\n".join(lines[at + 1 : at + 3])
    assert shown == f"      Kind of residual block (Figure 2). {kinds}"
    assert "  --config.train.steps=(from data)" in lines


@pytest.mark.parametrize("name", schema.FIELDS)
def test_every_field_says_what_it_may_be(name):
    """In choices or a range; ranges of numbers need both ends."""
    assert schema.FIELDS[name].describe_allowed()


def test_the_page_on_the_config_is_the_one_that_the_table_gives():
    page = (ROOT / "docs/config.md").read_text()
    assert page == schema.to_markdown(), (
        "Run python -m btsrn_jax.config > docs/config.md after a change of fields.py."
    )


def test_one_entry_in_the_table_makes_a_field_also_in_a_new_section(monkeypatch):
    saved = schema.defaults().to_dict()
    cutout = Field(0.0, Range(0, 50), "Side of a hole in LR.")
    monkeypatch.setitem(FIELDS, "data.augmentation.cutout", cutout)
    config = schema.defaults()
    assert schema.contradictions(saved, config) == []
    config.data.augmentation.cutout = 60.0
    assert message(config) == "config.data.augmentation.cutout is 60.0: from 0 to 50"
    assert schema.contradictions(saved, config) == [
        "config.data.augmentation.cutout was 0.0, now 60.0"
    ]
    assert "data.augmentation.cutout?" in schema.unknown_field(
        "data.degradation.cutuot"
    )
    assert "  --config.data.augmentation.cutout=0.0\n" in schema.to_help()
    assert (
        "| `data.augmentation.cutout` | `0.0` | from 0 to 50 |" in schema.to_markdown()
    )


def test_the_roles_of_fields_say_what_compares_and_repeats_runs():
    evaluation = {name for name in FIELDS if name.startswith("eval.")}
    paths = {"data.root", "data.hr_dir", "data.lr_dir"}
    watched = ("log_every", "time_limit", "profile", "tracker")
    traceless = {"data.cache", *(f"train.{name}" for name in watched)} | evaluation
    free = traceless | paths | {"train.eval_every", "train.checkpoint_every"}
    assert set(schema.NOT_TRAINING) == traceless
    assert set(schema.FREE_ON_RESUME) == free
    repeated = {"train.seed", "train.decay_steps", "train.micro_batches", "devices"}
    assert set(schema.NOT_SETTINGS) == free | repeated
    stages = {"model.low_blocks", "model.high_blocks"}
    assert set(schema.STUDIED) == {"model.block", "model.norm"} | stages
    assert all(FIELDS[name].role is Role.STUDIED for name in schema.STUDIED)


def test_a_config_is_validated_without_jax_and_flax():
    code = (
        "import sys; from btsrn_jax import config;"
        "config.validate(config.defaults()); config.to_help();"
        "print([m for m in ('jax', 'flax', 'skimage') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "[]\n", done.stderr


def test_every_config_file_is_tried_here():
    assert {path.name for path in CONFIGS.glob("*.py")} >= set(FILES)


@pytest.mark.parametrize(
    ("file", "arg"), [(file, arg) for file, args in FILES.items() for arg in args]
)
def test_every_config_file_is_valid_and_its_shapes_evaluate(file, arg):
    config = load(file, arg)
    schema.validate(config)
    network = model.build(config.model, config.scale)
    side = config.train.patch // config.scale
    target = network.output_size(side)
    assert target > 0

    def forward():
        variables = model.init(network, jax.random.key(0))
        return model.super_resolve(network, variables, jnp.zeros((2, side, side, 3)))[0]

    assert jax.eval_shape(forward).shape == (2, target, target, 3)


@pytest.mark.parametrize(
    ("file", "scale", "lr_patch"),
    [("x2.py", 2, 54), ("x3.py", 3, 36), ("x4.py", 4, 27)],
)
def test_the_papers_configs_have_the_papers_settings(file, scale, lr_patch):
    config = load(file)
    train = config.train
    assert config.scale == scale
    assert train.patch // scale == lr_patch
    assert (train.batch_size, train.learning_rate, train.decay_rate) == (32, 1e-3, 0.6)
    assert (train.loss, train.schedule) == ("mse", "exponential")
    assert (train.ema, train.clip_norm, train.init_from) == (0.0, 0.0, "")
    assert (config.model.features, config.model.bottleneck) == (128, 64)
    assert (config.model.low_blocks, config.model.high_blocks) == (6, 4)
    assert (config.data.source, config.data.track) == ("div2k", "bicubic")
    assert load(file, "unknown").data.track == "unknown"


@pytest.mark.parametrize(
    "file", ["x2.py", "x3.py", "x4.py", "quickstart.py", "photo.py"]
)
def test_an_unknown_argument_is_named(file):
    with pytest.raises(InputError, match="nonsense"):
        load(file, "nonsense")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (changed(scale=5), ["scale", "5", "2, 3, 4"]),
        (changed(train_patch=110), ["patch 110", "108 or 112"]),
        (changed(train_patch=4), ["patch 4", "at least 60"]),
        (changed(train_decay_steps=0), ["decay_steps", "0"]),
        (changed(train_steps=-3), ["train.steps", "-3"]),
        (changed(train_learning_rate=float("nan")), ["learning_rate", "nan"]),
        (changed(train_learning_rate=0.0), ["learning_rate"]),
        (changed(train_loss="huber"), ["'huber'", "mse, l1, charbonnier"]),
        (changed(model_block="resnet"), ["'resnet'", "pconv"]),
        (changed(model_features=0), ["model.features", "0"]),
        (changed(data_source="imagenet"), ["'imagenet'", "div2k"]),
        (changed(data_hr_dir="photos"), ["hr_dir", "folder"]),
        (changed(data_smaller_copies=(1.0,)), ["smaller_copies is (1.0,)", "(0.75, "]),
        (changed(data_smaller_copies=(0.5, 0.5)), ["different numbers"]),
        (changed(data_smaller_copies=("0.5",)), ["between 0 and 1"]),
        (
            changed(data_smaller_copies=(0.5,), data_track="unknown"),
            ["smaller_copies needs", "data.track=unknown"],
        ),
        (
            changed(
                data_smaller_copies=(0.5,),
                data_source="folder",
                data_hr_dir="hr",
                data_lr_dir="lr",
            ),
            ["smaller_copies needs", "data.lr_dir gives"],
        ),
        (changed(eval_sets=(1,)), ["eval.sets[0]", "1"]),
        (changed(eval_sets=("a", "")), ["eval.sets[1]"]),
        (changed(eval_protocol="psnr"), ["'psnr'", "ntire"]),
        (changed(train_warmup_steps=10), ["warmup_steps", "cosine or wsd"]),
        (changed(train_decay_share=0.5), ["decay_share is 0.5", "wsd", "exponential"]),
        (
            changed(train_schedule="wsd", train_decay_share=1.1),
            ["decay_share", "0 to 1"],
        ),
        (changed(train_profile=(5,)), ["train.profile is (5,)", "(100, 5)"]),
        (changed(train_profile=(0, 5)), ["train.profile is (0, 5)", "from 1"]),
        (changed(train_profile=(5, 0)), ["train.profile is (5, 0)"]),
        (changed(train_profile=(5, 2.0)), ["train.profile is (5, 2.0)"]),
        (changed(train_profile=(5, True)), ["train.profile is (5, True)"]),
        (changed(train_steps=10, train_profile=(9, 3)), ["9 to 11", "step 10"]),
        (changed(scale=2, model_mid_blocks=1), ["mid_blocks", "x4"]),
    ],
)
def test_an_impossible_value_is_named_with_what_was_expected(config, parts):
    text = message(config)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        *((name, 1.5, ["1.5: from 0 to 1"]) for name in ("blur", "noise", "jpeg")),
        ("jpeg", -0.1, ["-0.1: from 0 to 1"]),
        ("noise_grey", float("nan"), ["nan: from 0 to 1"]),
        ("jpeg_quality", (90, 40), ["(90, 40)", "from 1 to 100, low at most high"]),
        ("jpeg_quality", (0, 40), ["(0, 40)", "(low, high), whole numbers from 1"]),
        ("jpeg_quality", (40, 101), ["(40, 101)"]),
        ("jpeg_quality", (40.5, 90), ["(40.5, 90)", "whole numbers"]),
        ("jpeg_quality", (40,), ["(40,)", "(low, high)"]),
        ("jpeg_quality", ("a", "b"), ["('a', 'b')"]),
        ("noise_level", (5.0, 1.0), ["(5.0, 1.0)", "low at most high"]),
        ("noise_level", (0.0, float("nan")), ["nan", "numbers from 0 to 128"]),
        ("blur_width", (-1.0, 1.0), ["(-1.0, 1.0)", "from 0 to 8"]),
        ("blur_width", (0.2, 0.8, 1.0), ["(0.2, 0.8, 1.0)"]),
    ],
)
def test_a_degradation_that_cannot_be_is_refused(field, value, parts):
    config = schema.defaults()
    config.data.degradation[field] = value
    text = message(config)
    assert text.startswith(f"config.data.degradation.{field} is ")
    assert all(part in text for part in parts), text


def test_a_degradation_may_be_a_single_value_and_does_not_change_on_resume():
    config = changed(train_steps=10, train_decay_steps=1)
    config.data.degradation.update(jpeg=0.5, jpeg_quality=(75, 75), noise_level=(2, 2))
    schema.validate(config)
    saved = json.loads(json.dumps(config.to_dict()))  # with lists
    assert schema.contradictions(saved, config) == []
    config.data.degradation.jpeg_quality = (75, 80)
    (line,) = schema.contradictions(saved, config)
    assert line == "config.data.degradation.jpeg_quality was (75, 75), now (75, 80)"
    del saved["data"]["degradation"]  # of a run that is older than the section
    assert len(schema.contradictions(saved, config)) == 3


def test_a_batch_that_does_not_divide_names_the_nearest_sizes():
    config = changed(train_batch_size=30)
    schema.validate(config, devices=5)
    assert "30 does not divide over 8 devices: 24 or 32" in message(config, devices=8)
    assert "3 does not divide over 8 devices: 8" in message(
        changed(train_batch_size=3), devices=8
    )
    config = changed(train_batch_size=32, train_micro_batches=4)
    schema.validate(config, devices=8)
    assert message(changed(train_batch_size=48, train_micro_batches=4), devices=8) == (
        "config.train.batch_size 48 does not divide over 4 config.train.micro_batches"
        " of 8 devices: 32 or 64"
    )
    assert message(changed(train_batch_size=3, train_micro_batches=2)) == (
        "config.train.batch_size 3 does not divide over 2 config.train.micro_batches:"
        " 2 or 4"
    )


def test_batch_statistics_need_the_whole_batch():
    config = changed(train_micro_batches=2, model_norm="weight")
    schema.validate(config)
    config.model.norm = "batch"
    assert "micro_batches is 2: 1 was expected with config.model.norm" in message(
        config
    )


def test_warmup_as_long_as_training_is_refused():
    config = changed(train_schedule="cosine", train_warmup_steps=10, train_steps=10)
    assert "warmup_steps 10" in message(config)


def test_warmup_that_reaches_into_the_decay_is_refused():
    def config(**values):
        fixed = {"train_schedule": "wsd", "train_steps": 100}
        return changed(**fixed, **values)

    text = message(config(train_warmup_steps=81))
    assert "warmup_steps is 81" in text
    assert "after step 80 of 100" in text
    schema.validate(config(train_warmup_steps=80))
    schema.validate(config(train_decay_share=1.0))
    assert "warmup_steps" in message(
        config(train_decay_share=1.0, train_warmup_steps=1)
    )


def test_a_section_replaced_whole_is_refused():
    config = schema.defaults().to_dict()
    config["model"] = {"features": 8}
    from ml_collections import ConfigDict

    assert "replaces all" in message(ConfigDict(config))


def test_an_unknown_field_suggests_the_nearest():
    from ml_collections import ConfigDict

    config = schema.defaults().to_dict()
    config["train"]["stepz"] = 3
    assert "did you mean config.train.steps?" in message(ConfigDict(config))


def test_a_wrong_type_is_named():
    config = schema.defaults()
    with config.ignore_type():
        config.train.batch_size = "many"
    text = message(config)
    assert "batch_size" in text
    assert "int was expected" in text


def test_steps_follow_from_the_data_or_from_each_other():
    """There are 16 passes by default; `steps` alone makes decay_steps a sixteenth."""

    def resolved(**values):
        train = schema.resolve_steps(changed(**values), steps_per_pass=664).train
        return train.steps, train.decay_steps

    assert resolved() == (16 * 664, 664)
    assert resolved(train_steps=1600) == (1600, 100)
    assert resolved(train_steps=3) == (3, 1)
    assert resolved(train_decay_steps=10) == (160, 10)
    assert resolved(train_steps=5, train_decay_steps=7) == (5, 7)


def test_what_may_change_on_resume_and_what_may_not():
    def found(**values):
        old = schema.resolve_steps(changed(train_steps=1600), 1).to_dict()
        new = schema.resolve_steps(changed(train_steps=1600), 1)
        for name, value in values.items():
            section, _, field = name.partition("_")
            new[section][field] = value
        return schema.contradictions(old, new.to_dict())

    assert found() == []
    assert found(train_time_limit=5.0, train_log_every=7, eval_tile=32) == []
    assert found(data_root="elsewhere", data_cache="host") == []
    assert found(train_steps=3200) == []
    # Files in place of what imresize made are other training images.
    assert found(data_lr_dir="lr") == ["config.data.lr_dir was '', now 'lr'"]
    assert found(train_learning_rate=0.01) == [
        "config.train.learning_rate was 0.001, now 0.01"
    ]
    assert len(found(train_steps=3200, train_decay_steps=200)) == 2
    assert len(found(model_features=64, train_seed=1)) == 2
    assert found(train_micro_batches=2) == ["config.train.micro_batches was 1, now 2"]


@pytest.mark.parametrize(
    ("made", "new", "refused"),
    [
        (80, {"steps": 200}, []),
        (80, {"steps": 101}, []),
        (40, {"steps": 50}, []),  # so it decays at once
        (40, {"steps": 49}, ["steps"]),
        (81, {"steps": 200}, ["steps"]),
        (100, {"steps": 200}, ["steps"]),
        (80, {"decay_share": 0.1}, []),
        (80, {"decay_share": 0.0}, []),
        (80, {"decay_share": 0.3}, ["decay_share"]),
        (81, {"decay_share": 0.1}, ["decay_share"]),
        (70, {"steps": 100, "decay_share": 0.3}, []),
        (70, {"steps": 80, "decay_share": 0.1}, []),
        (99, {"decay_steps": 9}, []),  # of no effect
        (0, {"steps": 7, "decay_share": 1.0}, []),
        (10, {"steps": 200, "schedule": "cosine"}, ["steps", "schedule"]),
        (10, {"steps": 200, "learning_rate": 0.1}, ["learning_rate"]),
    ],
)
def test_a_wsd_run_may_change_its_length_before_its_rate_falls(made, new, refused):
    """The saved run has 100 steps: its rate falls after the 80th. `steps` alone sets
    decay_steps, too, which means nothing here."""

    def resolved(**train):
        config = schema.defaults()
        config.train.update({"schedule": "wsd", "steps": 100, **train})
        return schema.resolve_steps(config, 1).to_dict()

    found = schema.contradictions(resolved(), resolved(**new), made)
    names = {text.partition(" ")[0] for text in found}
    assert names == {f"config.train.{name}" for name in refused}


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("made", [1, 2, 7, 101, 100_000])
def test_the_fewest_steps_are_those_after_which_the_rate_falls_at_once(made, share):
    steps = schedules.fewest_steps(made, share)
    assert schedules.decay_start(steps, share) >= made
    assert schedules.decay_start(steps - 1, share) < made
