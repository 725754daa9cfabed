"""`launch/tpu_pod.sh`, run with a fake gcloud."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.fake_programs import LAUNCH, executable
from helpers.processes import HANG
from helpers.small_run import ROOT

pytestmark = [
    pytest.mark.medium,
    pytest.mark.skipif(
        not (ROOT / ".git").exists(), reason="the script packs the files that git lists"
    ),
]

TPU = ("--name=mine", "--zone=us-west4-a")
ASKED = (*TPU, "--type=v5litepod-8", "--bucket=gs://mine")
TRAINING = ("--", "--config=configs/tiny.py")


class Cloud:
    """Runs the script with a fake gcloud, whose state and failures a test sets."""

    def __init__(self, folder):
        self.folder = folder
        text = (ROOT / "tests/helpers/fake_gcloud.py").read_text()
        executable(folder / "gcloud", f"#!{sys.executable} -S\n{text}")
        # Nobody unpacks the package of 20 MB, which takes a second to compress.
        executable(folder / "gzip", "#!/bin/sh\nexec cat\n")
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
        """The exit status and all output; `typed` is what the user answers."""
        process = self.start(*words)
        out, printed = process.communicate(typed, timeout=HANG)
        return process.returncode, out + printed

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


def costs(printed):
    """Whether the script warned that a TPU costs money, or may, or will."""
    return re.search(r"COSTS? MONEY", printed)


ONE_RUN = ["scp", "install", "start", "follow"]


def test_all_trains_and_deletes(cloud):
    cloud.set(futures=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    status, printed = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 0, printed
    assert cloud.done == ["create", *ONE_RUN, "delete"]
    assert cloud.state == "NONE"
    assert re.findall(r"mine: (\w+) after", printed) == [
        "NONE",
        "WAITING_FOR_RESOURCES",
        "PROVISIONING",
        "ACTIVE",
    ]
    assert "done: what it wrote is in gs://mine" in printed
    assert not costs(printed)


def test_the_request_has_the_options_of_the_command_line(cloud):
    _, printed = cloud.run("create", *ASKED, "--project=ours", "--yes")
    (call,) = [call for call in cloud.calls if "queued-resources create" in call]
    assert call == (
        "compute tpus queued-resources create mine --node-id=mine"
        " --accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite"
        " --valid-until-duration=6h"
        " --scopes=https://www.googleapis.com/auth/cloud-platform"
        " --spot --zone=us-west4-a --project=ours"
    )
    # At its end the script warns that the TPU costs money.
    assert "STILL COSTS MONEY: mine in us-west4-a is running" in printed
    assert "launch/tpu_pod.sh delete --name=mine --zone=us-west4-a --project=ours" in (
        printed
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
    status, printed = cloud.run("run", *ASKED, "--yes", *flags)
    assert status == 0, printed
    (call,) = [call for call in cloud.calls if "tpu_worker.sh start" in call]
    assert "--worker=all" in call
    command = call.split("--command=")[1].split(" --zone")[0]
    # The worker's shell splits it again.
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
        "train",
        "--config=configs/own_songs.py:my songs.jsonl",
        "--profile=a'b",
        "--config.features.cache=gs://mine/features/mert_330m",
    ]


OVER_NIGHT = {
    "cache": ("--config=configs/features/mert_330m.py:corpora/musiccaps",),
    "train": ("--config=configs/finetune_music_instruct.py:long",),
    "generate": (
        "--config=configs/finetune_music_instruct.py:long",
        "--out=runs/answers.jsonl",
    ),
}


def test_a_corpus_is_encoded_learnt_from_and_asked_with_a_preemption_in_each(cloud):
    """Whatever the program, the second TPU gets the command of the first."""
    for program, flags in OVER_NIGHT.items():
        cloud.set(follow=["preempt"])
        words = (*ASKED, "--yes", f"--program={program}", "--", *flags)
        status, printed = cloud.run("all", *words)
        assert status == 0, printed
        assert "preempted (1 of at most 50)" in printed
        assert cloud.done.count("create") == 2 and cloud.state == "NONE"
        begun = f"tpu_worker.sh start {program} {' '.join(flags)} "
        starts = [call for call in cloud.calls if "tpu_worker.sh start" in call]
        assert len(starts) == 2 and starts[0] == starts[1]
        assert begun in starts[0] and "gs://mine/features/mert_330m" in starts[0]


def test_the_dry_runs_of_the_three_share_the_cache_of_the_bucket(cloud):
    for program, flags in OVER_NIGHT.items():
        words = ("--dry-run", *ASKED, f"--program={program}", "--", *flags)
        status, printed = cloud.run("all", *words)
        assert status == 0, printed
        told = [shlex.split(line) for line in printed.splitlines() if line[:2] == "+ "]
        commands = [word for words in told for word in words if "--command=" in word]
        (begun,) = [word for word in commands if "tpu_worker.sh start" in word]
        cache = "--config.features.cache=gs://mine/features/mert_330m"
        assert begun.endswith(" ".join([" start", program, *flags, cache]))
    assert cloud.calls == []


def test_annotations_are_not_for_a_tpu(cloud):
    refused, printed = cloud.run("run", *ASKED, "--program=annotate", *TRAINING)
    assert refused == 1 and "instruct are shared out by launch/share.sh" in printed


def test_a_cache_named_in_the_flags_of_training_takes_precedence(cloud):
    cloud.run("run", *ASKED, "--yes", *TRAINING, "--config.features.cache=elsewhere")
    (call,) = [call for call in cloud.calls if "tpu_worker.sh start" in call]
    assert "gs://mine/features" not in call
    assert "--config.features.cache=elsewhere" in call


@pytest.mark.parametrize("when", ["ssh", "scp", "install", "start", "follow"])
def test_after_a_preemption_training_starts_over(cloud, when):
    cloud.set(**{when: ["preempt"]})
    status, printed = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 0, printed
    assert "preempted (1 of at most 50); requesting another TPU" in printed
    assert cloud.done.count("create") == 2
    assert cloud.done[-6:] == ["create", *ONE_RUN, "delete"]
    # The first request is deleted before the second, which has the same name.
    first, second = (i for i, name in enumerate(cloud.done) if name == "create")
    assert "delete" in cloud.done[first:second]


def test_after_a_preemption_announced_by_sigterm_training_starts_over(cloud):
    # Training saved and exited at SIGTERM; only then did the machine go.
    cloud.set(follow=[143], futures=[["ACTIVE"] * 5 + ["SUSPENDING", "SUSPENDED"]])
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 0, printed
    assert cloud.done == ["create", *ONE_RUN, "delete", "create", *ONE_RUN]


def test_after_too_many_preemptions_it_gives_up(cloud):
    cloud.set(follow=["preempt"] * 9)
    status, printed = cloud.run("all", *ASKED, "--yes", "--restarts=2", *TRAINING)
    assert status == 1
    assert "error: preempted 3 times; try another zone" in printed
    assert cloud.done.count("create") == 3
    assert cloud.state == "NONE"


def test_a_number_of_restarts_is_decimal(cloud):
    # In bash 08 is an octal number, and a wrong one.
    cloud.set(follow=["preempt"] * 2)
    status, printed = cloud.run("run", *ASKED, "--yes", "--restarts=08", *TRAINING)
    assert status == 0, printed
    assert "preempted (2 of at most 8)" in printed


def test_a_broken_connection_is_restored(cloud):
    cloud.set(follow=[255, 255, 0])
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 0, printed
    assert printed.count("the connection broke; trying again") == 2
    assert cloud.done == ["create", *ONE_RUN, "follow", "follow"]


def test_a_tpu_that_refuses_ssh_at_first_is_waited_for(cloud):
    cloud.set(ssh=[255, 255, 0])
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 0, printed
    assert cloud.done == ["create", *ONE_RUN]


def test_a_tpu_that_keeps_refusing_ssh_is_an_error_and_still_costs(cloud):
    cloud.set(ssh=[255] * 99)
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert "mine refuses SSH" in printed
    assert "STILL COSTS MONEY: mine" in printed
    assert cloud.done == ["create"]


def test_training_that_fails_is_not_repeated(cloud):
    cloud.set(follow=[1])
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert "train failed with status 1" in printed
    assert cloud.done == ["create", *ONE_RUN]
    assert "STILL COSTS MONEY: mine" in printed


def test_all_deletes_also_after_a_failure(cloud):
    cloud.set(follow=[1])
    status, printed = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert cloud.done == ["create", *ONE_RUN, "delete"]
    assert not costs(printed)


def test_an_installation_that_fails_ends_it(cloud):
    cloud.set(install=[1])
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert cloud.done == ["create", "scp", "install"]
    assert "STILL COSTS MONEY" in printed


def test_without_quota_nothing_remains(cloud):
    quota = "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptible' has been exceeded"
    cloud.set(create=[quota])
    status, printed = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert quota in printed
    assert "If it is the quota" in printed
    assert cloud.done == ["create"]
    assert not costs(printed)


def test_without_capacity_nothing_remains(cloud):
    cloud.set(futures=[["WAITING_FOR_RESOURCES", "FAILED"]])
    status, printed = cloud.run("create", *ASKED, "--yes")
    assert status == 1
    assert "the TPU was not granted, and costs nothing" in printed
    assert cloud.done == ["create", "delete"]
    assert not costs(printed)


def test_an_existing_tpu_is_not_requested_again(cloud):
    cloud.set(state="ACTIVE")
    assert cloud.run("create", *ASKED)[0] == 0
    cloud.set(state="WAITING_FOR_RESOURCES", grants=["PROVISIONING", "ACTIVE"])
    assert cloud.run("create", *ASKED)[0] == 0
    assert cloud.done == []


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_the_request_of_an_earlier_tpu_is_removed(cloud, state):
    cloud.set(state=state)
    assert cloud.run("create", *ASKED, "--yes")[0] == 0
    assert cloud.done == ["delete", "create"]


@pytest.mark.parametrize(
    ("typed", "done"), [("n\n", []), ("", []), ("y\n", ["create"])]
)
def test_nothing_is_requested_without_consent(cloud, typed, done):
    status, printed = cloud.run("create", *ASKED, typed=typed)
    assert cloud.done == done
    assert status == (0 if done else 1)
    assert ("nothing was requested" in printed) == (not done)


@pytest.mark.parametrize(
    ("typed", "done"), [("n\n", []), ("", []), ("y\n", ["delete"])]
)
def test_nothing_is_deleted_without_consent(cloud, typed, done):
    cloud.set(state="ACTIVE")
    status, printed = cloud.run("delete", *TPU, typed=typed)
    assert (status, cloud.done) == (0, done)
    assert ("costs money until it is" in printed) == (not done)


def test_without_an_answer_all_keeps_the_tpu_and_says_so(cloud):
    status, printed = cloud.run("all", *ASKED, *TRAINING, typed="y\n")
    assert status == 0
    assert cloud.done == ["create", *ONE_RUN]
    assert "mine was not deleted, and costs money until it is" in printed
    assert "STILL COSTS MONEY: mine" in printed


def test_deleting_a_tpu_that_does_not_exist_succeeds(cloud):
    status, printed = cloud.run("delete", *TPU)
    assert (status, cloud.done) == (0, [])
    assert "mine does not exist in us-west4-a" in printed


def test_an_error_of_gcloud_does_not_look_like_a_missing_tpu(cloud):
    # Otherwise a broken network would look like a TPU that is not there.
    cloud.set(
        state="ACTIVE", describe=["PERMISSION_DENIED: tpu.queuedResources.get"] * 9
    )
    for command in ("create", "delete"):
        status, printed = cloud.run(command, *ASKED, "--yes")
        assert status == 1
        assert "gcloud cannot tell the state of mine" in printed
    assert "PERMISSION_DENIED" in printed
    assert cloud.done == []
    status, printed = cloud.run("run", *ASKED, "--yes", *TRAINING)
    assert (status, cloud.done) == (1, [])
    assert "nothing was requested; gcloud cannot tell whether mine exists" in printed
    assert not costs(printed)


def test_ctrl_c_reminds_of_a_running_tpu(cloud, tmp_path):
    # A gcloud that sleeps while it follows.
    real = tmp_path / "gcloud.real"
    (tmp_path / "gcloud").rename(real)
    executable(
        tmp_path / "gcloud",
        '#!/usr/bin/env bash\n[[ "$*" == *follow* ]] && trap "exit 130" INT'
        f' && touch {tmp_path}/following && sleep 600\nexec {real} "$@"\n',
    )
    cloud.set(state="ACTIVE")
    process = cloud.start("run", *ASKED, "--yes", *TRAINING)
    while not (tmp_path / "following").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=HANG)
    assert process.returncode in (130, -signal.SIGINT)
    assert "STILL COSTS MONEY: mine in us-west4-a is running" in printed


def test_a_dry_run_never_calls_gcloud(cloud):
    status, printed = cloud.run("all", "--dry-run", *ASKED, *TRAINING)
    assert status == 0, printed
    assert cloud.calls == []
    told = [line for line in printed.splitlines() if line.startswith("+ gcloud ")]
    cloud.set()
    cloud.run("all", *ASKED, "--yes", *TRAINING)
    changing = [line for line in told if "--format=" not in line]
    real = [call for call in cloud.calls if "--format=" not in call]
    assert len(changing) == len(real) == 8
    assert "nothing was requested, changed or deleted" in printed
    assert not re.search("done:|is deleted", printed)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="there is no real gcloud")
def test_the_real_gcloud_accepts_every_command(cloud, tmp_path):
    real = shutil.which("gcloud")
    cloud.set(follow=["preempt"], futures=[["ACTIVE"], ["CREATING", "FAILED"]])
    for command in ("all", "status"):
        cloud.run(command, *ASKED, "--project=ours", "--yes", *TRAINING)
    lines = (LAUNCH / "README.md").read_text().replace("\\\n", "").splitlines()
    told = [line.split("  #")[0] for line in lines if line.startswith("gcloud ")]
    assert len(told) == 4
    # The parser wants single characters quoted, not whole words.
    for call in set((tmp_path / "calls").read_text().splitlines()):
        words = [re.sub(r"[^\w./:=,-]", r"\\\g<0>", word) for word in json.loads(call)]
        told.append(" ".join(["gcloud", *words]))
    assert len(told) > 12
    for command in [*told, "gcloud storage ls --nonsense"]:
        checked = subprocess.run(
            [real, "meta", "lint-gcloud-commands", f"--command-string={command}"],
            # Not the configuration of whoever runs the tests.
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
        (("run", *ASKED), "name what to train"),
        (("run", *ASKED, "--", "--config=configs/nope.py:long"), "no configs/nope.py"),
        (("fly", *ASKED), "unknown command fly"),
        (("run", *ASKED, "--config=x"), "put flags of the program after --"),
        (("create", *TPU, "--type=v9-8"), "--type=v9-8: this type is unknown"),
        (("install", *TPU, "--bucket=mine"), "must name a bucket and no folder in it"),
        (("run", *ASKED, "--restarts=x", *TRAINING), "--restarts=x: must be"),
        (("run", *ASKED, "--restarts=-1", *TRAINING), "--restarts=-1: must be"),
        (("run", *ASKED, "--restarts=", *TRAINING), "--restarts= is empty: give it"),
        (("run", *ASKED, "--features=", *TRAINING), "--features= is empty: give it"),
        (("run", *ASKED, "--restarts=9999999", *TRAINING), "must be a whole number"),
        (("all", *ASKED, "--bucket=gs://BUCKET", *TRAINING), "replace BUCKET with"),
        (("all", *ASKED, "--zone=…", *TRAINING), "--zone=…: replace … with"),
        (("create", "--name=NAME", "--zone=a", "--type=v6e-8"), "replace NAME with"),
        (("run", *ASKED, "--", "--config=…"), "--config=…: replace … with"),
    ],
)
def test_wrong_options_are_refused_before_gcloud_is_called(cloud, words, message):
    status, printed = cloud.run(*words)
    assert status == 1
    assert message in printed
    assert cloud.calls == []


def test_a_bucket_that_cannot_rename_folders_is_refused(cloud):
    cloud.set(hierarchical="")
    status, printed = cloud.run("all", *ASKED, "--yes", *TRAINING)
    assert status == 1
    assert "has no hierarchical namespace" in printed
    assert "--enable-hierarchical-namespace" in printed
    assert cloud.done == []


@pytest.mark.parametrize("words", [["help"], ["--help"], [], ["all", "--help"]])
def test_help_is_the_head_of_the_script(cloud, words):
    status, printed = cloud.run(*words)
    assert status == 0
    for word in ("--dry-run", "--spot", "delete", "You pay from when"):
        assert word in printed
    assert "set -e" not in printed


def commands_of(path):
    """The arguments of each `launch/tpu_pod.sh` in a file of Markdown."""
    text = path.read_text(encoding="utf-8").replace("\\\n", "")
    lines = re.findall(r"^launch/tpu_pod\.sh (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


COMMANDS = [*commands_of(LAUNCH / "README.md"), *commands_of(ROOT / "README.md")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_documentation_says_which_word_to_replace(cloud, words):
    command, *options = words
    status, printed = cloud.run(command, "--dry-run", *options)
    if placeholders := re.findall("BUCKET|…", " ".join(words)):
        assert status == 1
        assert f"replace {placeholders[0]} with a value of your own" in printed
        options = [word.replace("gs://BUCKET", "gs://mine") for word in options]
        options = [word.replace("…", "configs/tiny.py") for word in options]
        status, printed = cloud.run(command, "--dry-run", *options)
    assert status == 0, printed
    assert cloud.calls == []


def test_the_documentation_has_commands():
    assert len(COMMANDS) >= 5
    text = (LAUNCH / "README.md").read_text()
    for config in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / config).is_file()
