"""Claims about launch/: what each script would run, and what it does when a slice is
lost. The linters are those of the extra `test`."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile

import pytest
from helpers import tiny

from btsrn_jax import config as schema

LAUNCH = tiny.ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
CLOUD = {"PROJECT": "p", "BUCKET": "b", "IMAGE": "registry/image:1"}


def launch(name, *args, code=0, **environment):
    """What a script prints; a clean environment but for PATH and HOME."""
    env = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    done = subprocess.run(
        ["bash", str(LAUNCH / name), *args],
        env=env | environment,
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def linter(name):
    """A program of the environment that runs the tests, activated or not."""
    own = os.path.dirname(sys.executable)
    found = shutil.which(name, path=f"{own}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name}, of the extra `test`, is not installed")
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    subprocess.run([linter("shellcheck"), str(script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_stop_at_the_first_error(script):
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


def test_local_gpus_runs_one_process_for_all():
    text = launch("local_gpus.sh", "--dry-run", "--config.train.steps=5", GPUS="0,1")
    assert text == (
        "CUDA_VISIBLE_DEVICES=0,1 python -m btsrn_jax.main --config configs/x4.py"
        " --config.data.root=data --config.train.steps=5\n"
    )


# Values that a shell would take apart, or expand.
FLAGS = ["--config.eval.sets=('my set',)", '--config.data.hr_dir=a&b/$HOME "x"\\']


def command_of(name, *args, **environment):
    """The words with which a script starts btsrn_jax.main, after its name."""
    text = launch(name, *args, **CLOUD, **environment)
    if name == "gke.sh":
        yaml = pytest.importorskip("yaml")
        (container,) = pod(yaml.safe_load(text))["spec"]["containers"]
        # As Kubernetes: $$ is a dollar, and $(NAME) a variable.
        words = [word.replace("$$", "$") for word in container["command"]]
    else:
        line = next(x for x in text.splitlines() if "btsrn_jax.main" in x)
        words = shlex.split(line)
        if name == "tpu_vm.sh":
            words = shlex.split(words[-1].removeprefix("--command="))
    return words[words.index("btsrn_jax.main") + 1 :]


def value_of(command, flag):
    """The value of a flag, of either form; None without."""
    words = [word for text in command for word in text.split("=", 1)]
    return words[words.index(flag) + 1] if flag in words else None


TRAINERS = {"local_gpus.sh": [], "slurm.sbatch": [], "tpu_vm.sh": [], "gke.sh": ["tpu"]}


@pytest.mark.parametrize("name", TRAINERS)
def test_flags_reach_the_run_and_dry_run_counts_anywhere(name, tmp_path):
    """Nothing starts: a program that is not there would be an error."""
    nothing = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    kind = TRAINERS[name]
    for args in (
        ["--dry-run", *kind, *FLAGS],
        [*kind, FLAGS[0], "--dry-run", FLAGS[1]],
        [*FLAGS, *kind, "--dry-run"],
    ):
        command = command_of(name, *args, **nothing)
        assert command[-2:] == FLAGS
    for config in (["--config", "configs/x2.py"], ["--config=configs/x2.py"]):
        said = launch(name, *kind, *config, "--dry-run", code=2, **CLOUD)
        assert "CONFIG=FILE.py" in said


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ("configs/x4.py", "x4"),
        ("configs/x4.py:unknown", "x4-unknown"),
        ("my configs/release.py:x2,fast", "release-x2,fast"),
    ],
)
def test_each_config_has_its_own_folder_the_one_that_main_would_take(
    name, config, folder
):
    args = [*TRAINERS[name], "--dry-run"]
    command = command_of(name, *args, CONFIG=config)
    assert value_of(command, "--config") == config
    in_bucket = name in ("tpu_vm.sh", "gke.sh")
    expected = f"gs://b/runs/{folder}" if in_bucket else None
    assert value_of(command, "--workdir") == expected
    given = {"RUN": "my run"} if in_bucket else {"WORKDIR": "my run"}
    command = command_of(name, *args, CONFIG=config, **given)
    assert value_of(command, "--workdir").endswith("my run")


def test_all_scripts_look_for_div2k_where_it_was_prepared():
    """By one default, which is the config's own."""
    text = launch("prepare_div2k.sh", "--dry-run", CONFIGS="bicubic_x4")
    assert value_of(shlex.split(text), "--data-dir") == "data"
    text = launch("prepare_div2k.sh", "--dry-run", BUCKET="b", CONFIGS="bicubic_x4")
    copied = shlex.split(text.splitlines()[-1])[-1]
    assert copied == "gs://b/data/div2k/bicubic_x4"
    assert schema.defaults().data.root == "data"
    for name, kind in TRAINERS.items():
        root = value_of(command_of(name, *kind, "--dry-run"), "--config.data.root")
        assert root == (
            "data" if name in ("local_gpus.sh", "slurm.sbatch") else "gs://b/data"
        )
    said = launch("prepare_div2k.sh", "--dry-run", "--what", code=2)
    assert said.startswith("usage: ")


def stand_in(folder, name, body):
    """A program of that name on the PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_local_gpus_continues_after_75_and_nothing_else(tmp_path):
    """A python that exits with 75, 75, then 1."""
    count = tmp_path / "count"
    body = f"echo run >> {count}; (( $(wc -l < {count}) < 3 )) && exit 75; exit 1"
    path = stand_in(tmp_path / "bin", "python", body)
    launch("local_gpus.sh", code=1, **path)
    assert count.read_text() == "run\n" * 3
    launch("local_gpus.sh", code=1, RESTARTS="9", **path)
    assert count.read_text() == "run\n" * 4


def test_a_signal_to_local_gpus_reaches_the_run_which_is_not_continued(tmp_path):
    """A python that saves for a moment when told to stop, then exits with 75."""
    log = tmp_path / "log"
    save = f"trap '' TERM; echo stopping >> {log}; sleep 0.5; echo saved >> {log}"
    body = f'trap "{save}; exit 75" TERM; echo up >> {log}'
    path = stand_in(tmp_path / "bin", "python", f"{body}; while :; do sleep 0.05; done")
    script = ["bash", str(LAUNCH / "local_gpus.sh")]
    process = subprocess.Popen(script, env=os.environ | path, cwd=tiny.ROOT, stdout=-3)
    while not log.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    while "stopping" not in log.read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # a second one: the script still waits
    assert process.wait(30) == 75
    assert log.read_text() == "up\nstopping\nsaved\n"


def test_div2k_is_prepared_and_copied_to_a_bucket():
    where = {"DATA_DIR": "/d", "CONFIGS": "bicubic_x2", "ZIPS": "/z"}
    prepare = "'btsrn' 'prepare' 'div2k/bicubic_x2' '--data-dir' '/d' '--zips' '/z'\n"
    assert launch("prepare_div2k.sh", "--dry-run", **where) == prepare
    copy = (
        "'gcloud' 'storage' 'rsync' '--recursive' '/d/div2k/bicubic_x2'"
        " 'gs://b/data/div2k/bicubic_x2'\n"
    )
    text = launch("prepare_div2k.sh", "--dry-run", BUCKET="b", **where)
    assert text == prepare + copy


def test_slurm_runs_one_task_a_gpu_and_is_queued_again_on_75(tmp_path):
    text = launch("slurm.sbatch", "--dry-run", CONFIG="configs/x2.py:unknown")
    assert text.startswith(
        "srun --kill-on-bad-exit=1 .venv/bin/python -m btsrn_jax.main --distributed"
        " --config configs/x2.py:unknown --config.data.root=data\n"
    )
    options = (LAUNCH / "slurm.sbatch").read_text()
    for option in ("--requeue", "--signal=TERM@120", "--open-mode=append"):
        assert f"#SBATCH {option}" in options

    bin, log = tmp_path / "bin", tmp_path / "log"
    stand_in(bin, "srun", f'echo "${{@: -1}}" > {tmp_path}/last; exit ${{CODE}}')
    path = stand_in(bin, "scontrol", f'echo "$@" >> {log}')
    launch("slurm.sbatch", FLAGS[1], code=75, CODE="75", SLURM_JOB_ID="17", **path)
    assert log.read_text() == "requeue 17\n"
    assert (tmp_path / "last").read_text() == f"{FLAGS[1]}\n"
    launch("slurm.sbatch", code=75, CODE="75", **path)  # not in a job: nothing to queue
    for code in (0, 1, 2):
        launch("slurm.sbatch", code=code, CODE=str(code), SLURM_JOB_ID="17", **path)
    assert log.read_text() == "requeue 17\n"


TYPES = {
    "v4-8": "tpu-ubuntu2204-base",
    "v5litepod-8": "v2-alpha-tpuv5-lite",
    "v5p-8": "v2-alpha-tpuv5",
    "v6e-8": "v2-alpha-tpuv6e",
}


@pytest.mark.parametrize("kind", TYPES)
def test_tpu_vm_prints_its_commands(kind):
    text = launch(
        "tpu_vm.sh", "--dry-run", "--config.train.steps=5", TYPE=kind, **CLOUD
    )
    commands = [shlex.split(x) for x in text.splitlines()[:5]]
    where = ["btsrn", "--project=p", "--zone=us-west4-a"]
    tpu = ["gcloud", "compute", "tpus", "tpu-vm"]
    create, _, copy, install, train = commands
    version = f"--version={TYPES[kind]}"
    kind = f"--accelerator-type={kind}"
    assert create == [*tpu, "create", *where, kind, version, "--spot"]
    assert copy[:5] == [*tpu, "scp"]
    assert copy[6:] == ["btsrn:btsrn-jax.tar.gz", *where[1:], "--worker=all"]
    assert install[:8] == [*tpu, "ssh", *where]
    assert train[:9] == [*tpu, "ssh", *where, "--worker=all"]
    assert '"btsrn-jax[gcs,tpu] @ file://$HOME/btsrn-jax.tar.gz"' in install[9]
    assert train[9].startswith(
        "--command=exec ~/venv/bin/python -m btsrn_jax.main --distributed"
    )
    assert " --workdir gs://b/runs/x4 --config.data.root=gs://b/data" in train[9]
    assert train[9].endswith(" --config.train.steps=5")


def test_tpu_vm_installs_what_it_is_told_to():
    text = launch("tpu_vm.sh", "--dry-run", SOURCE="git+https://example.org/x", **CLOUD)
    assert '"btsrn-jax[gcs,tpu] @ git+https://example.org/x"' in text
    assert "scp" not in text


def test_tpu_vm_names_what_is_missing():
    assert "BUCKET" in launch("tpu_vm.sh", "--dry-run", code=1, PROJECT="p")
    assert "v9-8" in launch("tpu_vm.sh", "--dry-run", code=2, TYPE="v9-8", **CLOUD)


GCLOUD = """
echo "$4" "${@: -1}" >> "$STATE.log"
case "$4" in
  describe) cat "$STATE" 2>/dev/null ;;
  create) echo READY > "$STATE" ;;
  delete) rm "$STATE" ;;
  scp) cp "$5" "$STATE.tar.gz" ;;
  ssh)
    [[ "${@: -1}" == *btsrn_jax.main* ]] || exit 0
    echo run >> "$STATE.runs"
    if (( $(wc -l < "$STATE.runs") <= LOSSES )); then
      echo "$BECOMES" > "$STATE"
      exit "$CODE"
    fi ;;
esac
"""


def calls(tmp_path, code=0, **environment):
    """The verbs that a stand-in for gcloud saw."""
    path = stand_in(tmp_path / "bin", "gcloud", GCLOUD)
    environment = CLOUD | {"STATE": str(tmp_path / "state"), "WAIT": "0"} | environment
    launch("tpu_vm.sh", code=code, **path, **environment)
    log = (tmp_path / "state.log").read_text()
    lines = [x for x in log.splitlines() if x.split(" ")[0] in VERBS]
    trains = {x for x in lines if "btsrn_jax.main" in x}
    assert len(trains) <= 1  # always the same command, so that it resumes
    return ["train" if "btsrn_jax.main" in x else VERBS[x.split(" ")[0]] for x in lines]


VERBS = {
    "describe": "?",
    "create": "create",
    "delete": "delete",
    "scp": "copy",
    "ssh": "install",
}
RUN = ["copy", "install", "train"]
FRESH = ["?", "create", *RUN]


def test_a_preempted_slice_is_created_again_and_the_run_resumed(tmp_path):
    lost = {"LOSSES": "2", "BECOMES": "PREEMPTED", "CODE": "255"}
    again = ["?", "?", "delete", "create", *RUN]
    assert calls(tmp_path, **lost) == FRESH + again + again
    with tarfile.open(tmp_path / "state.tar.gz") as archive:
        names = archive.getnames()
    assert {"pyproject.toml", "btsrn_jax/main.py", "configs/x4.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_a_slice_that_is_there_is_used(tmp_path):
    (tmp_path / "state").write_text("READY\n")
    assert calls(tmp_path, LOSSES="0") == ["?", *RUN]


def test_a_run_that_stopped_early_continues_on_the_same_slice(tmp_path):
    stopped = {"LOSSES": "1", "BECOMES": "READY", "CODE": "75"}
    assert calls(tmp_path, **stopped) == [*FRESH, "?", *RUN]


def test_an_error_of_the_program_is_not_tried_again(tmp_path):
    wrong = {"LOSSES": "1", "BECOMES": "READY", "CODE": "2"}
    assert calls(tmp_path, code=2, **wrong) == [*FRESH, "?"]


def test_attempts_are_bounded(tmp_path):
    lost = {"LOSSES": "9", "BECOMES": "PREEMPTED", "CODE": "255", "ATTEMPTS": "2"}
    assert calls(tmp_path, code=75, **lost).count("train") == 2


@pytest.fixture(params=["tpu", "gpu"])
def manifest(request):
    yaml = pytest.importorskip("yaml")
    text = launch("gke.sh", request.param, "--dry-run", **CLOUD)  # the usual order
    assert launch("gke.sh", "--dry-run", request.param, **CLOUD) == text
    assert "$" not in text
    return request.param, yaml.safe_load(text)


def pod(jobset):
    (job,) = jobset["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]


def test_the_jobsets_own_fields_are_those_of_the_example(manifest):
    import yaml

    kind, jobset = manifest
    jobset["metadata"].pop("labels")
    if kind == "tpu":
        (place,) = jobset["metadata"].pop("annotations").items()
        name = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        assert place == (name, "cloud.google.com/gke-nodepool")
    jobset["spec"]["replicatedJobs"][0]["template"]["spec"].pop("template")
    example = pathlib.Path(__file__).with_name("jobset_example.yaml").read_text()
    assert jobset == yaml.safe_load(example)


def test_slices_are_jobs_of_one_set_and_for_tpus_alone():
    yaml = pytest.importorskip("yaml")
    one, two = (
        yaml.safe_load(launch("gke.sh", "--dry-run", "tpu", SLICES=n, **CLOUD))
        for n in ("1", "2")
    )
    (job,) = two["spec"]["replicatedJobs"]
    assert job["replicas"] == 2
    job["replicas"] = 1
    assert one == two
    said = launch("gke.sh", "--dry-run", "gpu", code=2, SLICES="2", **CLOUD)
    assert "HOSTS=2" in said


def test_its_pods_are_what_kubernetes_expects(manifest):
    validate = pytest.importorskip("kubernetes_validate")
    kind, jobset = manifest
    (container,) = pod(jobset)["spec"]["containers"]
    assert "--distributed" in container["command"]
    limits = {"tpu": {"google.com/tpu": 4}, "gpu": {"nvidia.com/gpu": 8}}
    assert container["resources"]["limits"] == limits[kind]
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    validate.validate(whole | pod(jobset), "1.31", strict=True)
    (job,) = jobset["spec"]["replicatedJobs"]
    meta = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    validate.validate(meta | job["template"], "1.31", strict=True)


def test_gpu_pods_find_each_other_by_the_jobsets_names(manifest):
    kind, jobset = manifest
    (container,) = pod(jobset)["spec"]["containers"]
    if kind == "tpu":  # GKE itself tells TPU pods of each other
        assert "env" not in container
        return
    env = {item["name"]: item for item in container["env"]}
    assert env["JAX_COORDINATOR_ADDRESS"]["value"] == "btsrn-hosts-0-0.btsrn:8476"
    assert env["JAX_NUM_PROCESSES"]["value"] == "2"
    path = env["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_the_manifest_passes_yamllint():
    files = [str(LAUNCH / "gke_jobset.yaml"), str(tiny.ROOT / "tests")]
    subprocess.run([linter("yamllint"), "--strict", *files], check=True)


def test_the_dockerfile_passes_hadolint():
    subprocess.run([linter("hadolint"), str(LAUNCH / "Dockerfile")], check=True)


def test_what_the_image_copies_is_there_and_installs(tmp_path):
    """The image's two steps with pip, but for what they download."""
    lines = (tiny.ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    for name in kept:
        source, to = tiny.ROOT / name, tmp_path / "image" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)
    run = {"cwd": tmp_path / "image", "check": True, "capture_output": True}
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "."]
    target = tmp_path / "site"
    subprocess.run([sys.executable, *install, "--target", target], **run)
    assert (target / "btsrn_jax" / "configs" / "x4.py").is_file()
    assert (target / "btsrn_jax" / "pretrained" / "btsrn-x4").is_dir()


@pytest.mark.parametrize(
    ("accelerator", "need"), [("cpu", "openvino"), ("cuda", "cuda"), ("tpu", "tpu")]
)
def test_the_image_installs_the_package_and_its_extra(accelerator, need):
    script = [sys.executable, LAUNCH / "requirements.py", accelerator]
    done = subprocess.run(script, cwd=tiny.ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert "flax>=" in done.stdout
    assert need in done.stdout
    assert len(set(lines)) == len(lines)


def test_an_unknown_accelerator_is_one_line_that_lists_the_extras():
    script = [sys.executable, LAUNCH / "requirements.py", "gpu"]
    done = subprocess.run(script, cwd=tiny.ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("no extra 'gpu' in pyproject.toml: cuda, tpu")
