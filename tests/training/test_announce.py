"""Claims about what a run says: the learning rate in words, and how to go on."""

import shlex

import jax
import pytest
from helpers import tiny

from btsrn_jax import config as schema
from btsrn_jax import main as entry
from btsrn_jax import mesh
from btsrn_jax.errors import InputError
from btsrn_jax.training import announce, optimizer


def resolved(one_pass=1000, **settings):
    config = schema.defaults()
    config.train.update(settings)
    return schema.resolve_steps(config, one_pass)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "from 0.001, x 0.6 after every 1,000 steps, to 4.7e-07"),
        ({"steps": 60}, "from 0.001, x 0.6 after every 3 steps, to 6.1e-08"),
        ({"steps": 60, "decay_steps": 60}, "0.001 at every step"),
        ({"steps": 60, "decay_rate": 1.0}, "0.001 at every step"),
        (
            {"steps": 4000, "schedule": "cosine", "warmup_steps": 50},
            "from 0 to 0.001 in 50 steps, then along a cosine to 0 at step 4,000",
        ),
        (
            {"steps": 400, "schedule": "cosine", "learning_rate": 0.0015},
            "from 0.0015 along a cosine to 0 at step 400",
        ),
        (
            {"steps": 4000, "schedule": "wsd", "warmup_steps": 50},
            "from 0 to 0.001 in 50 steps, then 0.001 to step 3,200, then along 1 - sqrt"
            " to 0 at step 4,000",
        ),
        (
            {"steps": 400, "schedule": "wsd", "decay_share": 0.5},
            "0.001 to step 200, then along 1 - sqrt to 0 at step 400",
        ),
        (
            {"steps": 400, "schedule": "wsd", "decay_share": 0.0},
            "0.001 at every step",
        ),
    ],
)
def test_the_learning_rate_in_words_is_the_schedules_own(settings, words):
    settings = resolved(**settings).train
    said = announce.describe_rate(settings)
    assert said == f"learning rate {words}"
    schedule = optimizer.make_schedule(settings)
    last = said.removesuffix(" at every step").split(" ")[-1]
    if settings.schedule == "exponential" or "every step" in said:
        assert float(schedule(settings.steps - 1)) == pytest.approx(float(last), 0.05)
    else:
        assert float(schedule(settings.steps)) == pytest.approx(0, abs=1e-9)


def test_a_run_says_what_is_done_to_its_patches():
    section = resolved().data.degradation
    assert announce.describe_degradation(section) == ""
    section.update(noise=0.3, noise_level=(0, 6), jpeg=0.8)
    assert announce.describe_degradation(section) == (
        "LR patches are degraded: noise of 0 to 6 grey levels (0.3 of patches),"
        " jpeg of quality 30 to 98 (0.8 of patches)"
    )


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, None),  # the paper's own: two sixteenths lie below
        ({"steps": 400}, None),
        ({"steps": 60}, 42),
        ({"steps": 31}, 14),
        ({"steps": 60, "decay_steps": 4}, None),
        ({"steps": 3000, "decay_steps": 100}, 1400),
        ({"steps": 100, "decay_steps": 10, "decay_rate": 0.1}, 30),
        ({"steps": 100, "decay_steps": 10, "decay_rate": 1.0}, None),
        ({"steps": 60, "schedule": "cosine"}, None),
        ({"steps": 60, "schedule": "wsd"}, None),
    ],
)
def test_a_rate_that_teaches_nothing_for_many_steps_is_warned_of(settings, first):
    settings = resolved(**settings).train
    said = announce.warn_of_rate(settings)
    assert (f"after step {first:,} of " in said) if first else said == ""
    if first:
        schedule = optimizer.make_schedule(settings)
        least = 1e-3 * settings.learning_rate * (1 + 1e-5)
        assert schedule(first) <= least < schedule(first - 1)
        spread = settings.steps // -16 * -1
        assert f"--config.train.decay_steps={spread}" in said


def flags_of(said):
    """The flags in a sentence, as a shell would take them, one list an offer."""
    offers = said.split("; or with ")
    return [
        [word.rstrip(";,.") for word in shlex.split(x) if word.startswith("--")]
        for x in offers
    ]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(*flags, **settings): what a tiny run of that directory says."""
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    real = mesh.make_mesh
    monkeypatch.setattr(mesh, "make_mesh", lambda *_: real(jax.devices()[:1]))
    photos = tiny.write_photos(tmp_path / "photos", tiny.HR_SIZES)

    def command(*flags, **settings):
        args = tiny.command(tmp_path / "my run", photos, **settings)
        assert entry.run([*args[2:], *flags]) == 0
        return capsys.readouterr().err

    return command


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "wsd"])
def test_the_flags_that_are_offered_to_go_on_work(command, schedule):
    """To a finished run, and to one whose length was changed without them."""
    settings = {"steps": 2, "decay_steps": 1, "schedule": schedule, "log_every": 1}
    said = command(**settings)
    for name in ("upscale photo.jpg", "evaluate --model", "report"):
        assert f"btsrn {name}" in said
    assert "complete" not in said
    said = command(**settings).splitlines()
    said = next(x for x in said if x.startswith("complete: 2 of 2 steps; to go on: "))
    offered = flags_of(said)
    with pytest.raises(InputError, match=r"To go on: .*") as error:
        command(**settings | {"steps": 64, "decay_steps": 4})
    again = flags_of(str(error.value))
    with pytest.raises(InputError, match="Take another --workdir"):
        command(**settings | {"steps": 64, "decay_steps": 4, "batch_size": 4})
    extended = "--config.train.steps=4" in offered[0]
    assert extended == (schedule == "exponential")
    if extended:
        assert again[0] == ["--config.train.steps=64", "--config.train.decay_steps=1"]
    assert again[-1] == offered[-1]  # a new run, in a folder that is free
    for flags in offered:
        said = command(*flags, **settings)
        is_new = any(flag.startswith("--workdir") for flag in flags)
        assert ("continuing from step 2" in said) != is_new
    # The name that was offered is taken now.
    assert "my run-3" in command(**settings | ({"steps": 4} if extended else {}))
