"""Cloud TPUs by `launch/tpu_pod.sh`, on a gcloud that only pretends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.fake_programs import LAUNCH, executable
from helpers.small_run import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="what is packed is what git knows of"
)

TPU = ("--name=mine", "--zone=us-west4-a")
ASKED = (*TPU, "--type=v5litepod-8", "--bucket=gs://mine")
TRAINING = ("--", "--config=configs/tiny.py")


class Cloud:
    """A world with one zone, in which nothing costs."""

    def __init__(self, folder):
        self.folder = folder
        text = (ROOT / "tests/helpers/fake_gcloud.py").read_text()
        executable(folder / "gcloud", f"#!{sys.executable} -S\n{text}")
        self.set()

    def set(self, *, state="NONE", **events):
        world = {"state": state, "vm": "READY", "grants": [], "futures": []} | events
        (self.folder / "world.json").write_text(json.dumps(world))
        (self.folder / "calls").unlink(missing_ok=True)

    def start(self, *words):
        environment = os.environ | {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "POLL_SECONDS": "0",
        }
        return subprocess.Popen(
            [LAUNCH / "tpu_pod.sh", *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words, typed=""):
        """The status and what was said; `typed` is what the user answers."""
        process = self.start(*words)
        out, said = process.communicate(typed, timeout=60)
        return process.returncode, out + said

    @property
    def calls(self):
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [" ".join(json.loads(line)) for line in lines]

    @property
    def done(self):
        """The calls that change something, shortened."""
        kinds = {
            "queued-resources create": "create",
            "queued-resources delete": "delete",
            "tpu_worker.sh install": "install",
            "tpu_worker.sh start": "start",
            "tpu_worker.sh follow": "follow",
            "tpu_worker.sh stop": "stop",
            "tpu-vm scp": "scp",
        }
        return [
            name for call in self.calls for key, name in kinds.items() if key in call
        ]

    @property
    def state(self):
        return json.loads((self.folder / "world.json").read_text())["state"]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


ONE_RUN = ["scp", "install", "start", "follow"]


def test_all_trains_and_deletes(cloud):
    cloud.set(futures=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    status, said = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 0, said
    assert cloud.done == ["create", *ONE_RUN, "delete"]
    assert cloud.state == "NONE"
    assert re.findall(r"mine: (\w+) after", said) == [
        "NONE",
        "WAITING_FOR_RESOURCES",
        "PROVISIONING",
        "ACTIVE",
    ]
    assert "done: gs://mine/runs has the run" in said
    assert "STILL" not in said


def test_the_request_is_what_was_asked_for(cloud):
    _, said = cloud.run("create", *ASKED, "--project=ours", "--yes")
    (call,) = [call for call in cloud.calls if "queued-resources create" in call]
    assert call == (
        "compute tpus queued-resources create mine --node-id=mine"
        " --accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite"
        " --valid-until-duration=6h"
        " --scopes=https://www.googleapis.com/auth/cloud-platform"
        " --spot --zone=us-west4-a --project=ours"
    )
    # And it is not forgotten that it costs.
    assert "STILL RUNNING, and costing: mine in us-west4-a" in said
    assert "launch/tpu_pod.sh delete --name=mine --zone=us-west4-a --project=ours" in (
        said
    )


@pytest.mark.parametrize(
    ("kind", "software"),
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-1", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_each_type_has_its_software(cloud, kind, software):
    cloud.run("create", *TPU, f"--type={kind}", "--on-demand", "--yes")
    (call,) = [call for call in cloud.calls if "queued-resources create" in call]
    assert f"--runtime-version={software} " in call
    assert "--spot" not in call
    assert "--reserved" not in call


def test_training_gets_its_flags_and_the_cache_of_the_bucket(cloud):
    flags = ("--", "--config=configs/own_songs.py:my songs.jsonl", "--profile=a'b")
    status, said = cloud.run("run", *ASKED, "--yes", *flags)
    assert status == 0, said
    (call,) = [call for call in cloud.calls if "tpu_worker.sh start" in call]
    assert "--worker=all" in call
    command = call.split("--command=")[1].split(" --zone")[0]
    # The shell of the worker takes it apart again.
    words = subprocess.run(
        [
            "bash",
            "-c",
            command.replace(
                "cd musilingo_jax && launch/tpu_worker.sh", "printf '%s\\n'"
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert words == [
        "start",
        "--config=configs/own_songs.py:my songs.jsonl",
        "--profile=a'b",
        "--config.features.cache=gs://mine/features/mert_330m",
    ]


def test_a_cache_that_is_named_is_taken(cloud):
    cloud.run("run", *ASKED, "--yes", *TRAINING, "--config.features.cache=elsewhere")
    (call,) = [call for call in cloud.calls if "tpu_worker.sh start" in call]
    assert "gs://mine/features" not in call
    assert "--config.features.cache=elsewhere" in call


@pytest.mark.parametrize("when", ["ssh", "scp", "install", "start", "follow"])
def test_a_preemption_begins_again(cloud, when):
    cloud.set(**{when: ["preempt"]})
    status, said = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 0, said
    assert "preempted (1 of at most 50); asking for another TPU" in said
    assert cloud.done.count("create") == 2
    assert cloud.done[-6:] == ["create", *ONE_RUN, "delete"]
    # The first request is deleted before the second, which has the same name.
    first, second = (i for i, name in enumerate(cloud.done) if name == "create")
    assert "delete" in cloud.done[first:second]


def test_a_preemption_that_training_was_told_of_begins_again(cloud):
    # SIGTERM came first: it saved and ended, and only then the machine goes.
    cloud.set(follow=[143], futures=[["ACTIVE"] * 5 + ["SUSPENDING", "SUSPENDED"]])
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 0, said
    assert cloud.done == ["create", *ONE_RUN, "delete", "create", *ONE_RUN]


def test_preemptions_come_to_an_end(cloud):
    cloud.set(follow=["preempt"] * 9)
    status, said = cloud.run("all", *ASKED, "--yes", "--restarts=2", *TRAINING)
    assert status == 1
    assert "error: preempted 3 times; try another zone" in said
    assert cloud.done.count("create") == 3
    assert cloud.state == "NONE"


def test_a_broken_connection_is_taken_up_again(cloud):
    cloud.set(follow=[255, 255, 0])
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 0, said
    assert said.count("the connection broke; trying again") == 2
    assert cloud.done == ["create", *ONE_RUN, "follow", "follow"]


def test_a_tpu_that_lets_nobody_in_yet_is_waited_for(cloud):
    cloud.set(ssh=[255, 255, 0])
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 0, said
    assert cloud.done == ["create", *ONE_RUN]


def test_a_tpu_that_lets_nobody_in_is_told_and_not_forgotten(cloud):
    cloud.set(ssh=[255] * 99)
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert "mine lets nobody in" in said
    assert "STILL RUNNING, and costing: mine" in said
    assert cloud.done == ["create"]


def test_training_that_fails_is_not_repeated(cloud):
    cloud.set(follow=[1])
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert "it ended with status 1" in said
    assert cloud.done == ["create", *ONE_RUN]
    assert "STILL RUNNING, and costing: mine" in said


def test_all_deletes_also_after_a_failure(cloud):
    cloud.set(follow=[1])
    status, said = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert cloud.done == ["create", *ONE_RUN, "delete"]
    assert "STILL" not in said


def test_an_installation_that_fails_ends_it(cloud):
    cloud.set(install=[1])
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert cloud.done == ["create", "scp", "install"]
    assert "STILL RUNNING" in said


def test_without_quota_nothing_is_left(cloud):
    quota = "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptible' has been exceeded"
    cloud.set(create=[quota])
    status, said = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert quota in said
    assert "If it is the quota" in said
    assert cloud.done == ["create"]
    assert "STILL" not in said


def test_where_there_is_none_to_be_had_nothing_is_left(cloud):
    cloud.set(futures=[["WAITING_FOR_RESOURCES", "FAILED"]])
    status, said = cloud.run("create", *ASKED, "--yes")
    assert status == 1
    assert "the TPU was not granted, and costs nothing" in said
    assert cloud.done == ["create", "delete"]
    assert "STILL" not in said


def test_what_is_there_is_not_asked_for_again(cloud):
    cloud.set(state="ACTIVE")
    assert cloud.run("create", *ASKED)[0] == 0
    cloud.set(state="WAITING_FOR_RESOURCES", grants=["PROVISIONING", "ACTIVE"])
    assert cloud.run("create", *ASKED)[0] == 0
    assert cloud.done == []


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_what_is_left_of_an_earlier_one_is_removed(cloud, state):
    cloud.set(state=state)
    assert cloud.run("create", *ASKED, "--yes")[0] == 0
    assert cloud.done == ["delete", "create"]


@pytest.mark.parametrize(
    ("typed", "done"), [("n\n", []), ("", []), ("y\n", ["create"])]
)
def test_nothing_is_asked_for_without_consent(cloud, typed, done):
    status, said = cloud.run("create", *ASKED, typed=typed)
    assert cloud.done == done
    assert status == (0 if done else 1)
    assert ("nothing was asked for" in said) == (not done)


@pytest.mark.parametrize(
    ("typed", "done"), [("n\n", []), ("", []), ("y\n", ["delete"])]
)
def test_nothing_is_deleted_without_consent(cloud, typed, done):
    cloud.set(state="ACTIVE")
    status, said = cloud.run("delete", *TPU, typed=typed)
    assert (status, cloud.done) == (0, done)
    assert ("costs until it is" in said) == (not done)


def test_without_an_answer_all_keeps_the_tpu_and_says_so(cloud):
    status, said = cloud.run("all", *ASKED, *TRAINING, typed="y\n")
    assert status == 0
    assert cloud.done == ["create", *ONE_RUN]
    assert "mine was not deleted, and costs until it is" in said
    assert "STILL RUNNING, and costing: mine" in said


def test_deleting_nothing_is_no_error(cloud):
    status, said = cloud.run("delete", *TPU)
    assert (status, cloud.done) == (0, [])
    assert "mine: there is none in us-west4-a" in said


def test_an_answer_that_is_none_is_no_answer(cloud):
    # Otherwise a broken network would look like a TPU that is not there.
    cloud.set(
        state="ACTIVE", describe=["PERMISSION_DENIED: tpu.queuedResources.get"] * 9
    )
    for command in ("create", "delete"):
        status, said = cloud.run(command, *ASKED, "--yes")
        assert status == 1
        assert "gcloud does not say what there is" in said
    assert "PERMISSION_DENIED" in said
    assert cloud.done == []
    status, said = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert (status, cloud.done) == (1, [])
    assert "nothing was asked for here" in said
    assert "costing" not in said


def test_ctrl_c_reminds_of_what_goes_on(cloud, tmp_path):
    # A gcloud that sleeps while it follows.
    real = tmp_path / "gcloud.real"
    (tmp_path / "gcloud").rename(real)
    executable(
        tmp_path / "gcloud",
        f'#!/usr/bin/env bash\n[[ "$*" == *follow* ]] && touch {tmp_path}/following'
        f' && exec sleep 60\nexec {real} "$@"\n',
    )
    cloud.set(state="ACTIVE")
    process = cloud.start("run", *ASKED, "--yes", *TRAINING)
    for _ in range(300):
        if (tmp_path / "following").exists():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT)
    assert "STILL RUNNING, and costing: mine in us-west4-a" in said


def test_a_dry_run_calls_nothing(cloud):
    status, said = cloud.run("all", "--dry-run", *ASKED, *TRAINING)
    assert status == 0, said
    assert cloud.calls == []
    told = [line for line in said.splitlines() if line.startswith("+ gcloud ")]
    cloud.set()
    cloud.run("all", *ASKED, "--yes", *TRAINING)
    changing = [line for line in told if "--format=" not in line]
    real = [call for call in cloud.calls if "--format=" not in call]
    assert len(changing) == len(real) == 8
    assert "nothing was asked for, changed or deleted" in said
    assert not re.search("done:|is deleted", said)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="there is no real gcloud")
def test_the_real_gcloud_takes_every_command(cloud, tmp_path):
    real = shutil.which("gcloud")
    cloud.set(follow=["preempt"], futures=[["ACTIVE"], ["CREATING", "FAILED"]])
    for command in ("all", "status"):
        cloud.run(command, *ASKED, "--project=ours", "--yes", *TRAINING)
    lines = (LAUNCH / "README.md").read_text().replace("\\\n", "").splitlines()
    told = [line.split("  #")[0] for line in lines if line.startswith("gcloud ")]
    assert len(told) == 4
    # With single characters quoted, and not whole words, as the parser wants it.
    for call in set((tmp_path / "calls").read_text().splitlines()):
        words = [re.sub(r"[^\w./:=,-]", r"\\\g<0>", word) for word in json.loads(call)]
        told.append(" ".join(["gcloud", *words]))
    assert len(told) > 12
    for command in [*told, "gcloud storage ls --nonsense"]:
        checked = subprocess.run(
            [real, "meta", "lint-gcloud-commands", f"--command-string={command}"],
            # Not what belongs to whoever runs the tests.
            env=os.environ | {"CLOUDSDK_CONFIG": str(tmp_path / "config")},
            capture_output=True,
            text=True,
        )
        (found,) = json.loads(checked.stdout)
        assert found["success"] == ("--nonsense" not in command), found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("all", *TPU, *TRAINING), "--type=… is missing"),
        (("create", "--zone=a"), "--name=… is missing"),
        (("run", *ASKED), "say what to train"),
        (("run", *ASKED, "--", "--config=configs/nope.py:long"), "no configs/nope.py"),
        (("fly", *ASKED), "unknown command fly"),
        (("run", *ASKED, "--config=x"), "flags of the training come after --"),
        (("create", *TPU, "--type=v9-8"), "--type=v9-8: its software is not known"),
        (("install", *TPU, "--bucket=mine"), "must be a whole bucket, gs://NAME"),
        (("run", *ASKED, "--restarts=x", *TRAINING), "--restarts=x: must be"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_asked(cloud, words, message):
    status, said = cloud.run(*words)
    assert status == 1
    assert message in said
    assert cloud.calls == []


def test_a_bucket_that_cannot_rename_folders_is_refused(cloud):
    cloud.set(hierarchical="")
    status, said = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert "has no hierarchical namespace" in said
    assert "--enable-hierarchical-namespace" in said
    assert cloud.done == []


def test_help_is_the_head_of_the_script(cloud):
    status, said = cloud.run("help")
    assert status == 0
    for word in ("--dry-run", "--spot", "delete", "You pay from when"):
        assert word in said
    assert "set -e" not in said


def test_commands_of_the_note_exist():
    text = (LAUNCH / "README.md").read_text().replace("\\\n", "")
    source = (LAUNCH / "tpu_pod.sh").read_text()
    commands = re.findall(r"^launch/tpu_pod\.sh (\w+)(.*)$", text, re.MULTILINE)
    assert len(commands) == 5
    for command, options in commands:
        assert re.search(rf"^    (run \| )?{command}\)", source, re.MULTILINE)
        for option in re.findall(r"(?<!-)--\w[\w-]*", options.split(" -- ")[0]):
            assert re.search(rf"{option}(=\*)?\)", source), option
    for config in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / config).is_file()
