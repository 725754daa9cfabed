"""A run whose config says "auto" has one type of numbers, wherever it is continued."""

import json

import pytest
from helpers import processors, programs
from helpers.small_run import COMPILED_ALIKE, small_config, small_flags, trained_folder

from musilingo_jax import train as training
from musilingo_jax.answering.usage import Usage
from musilingo_jax.runtime import processor
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

SHORT = {
    "mesh__data": 1,
    "stages": ("stage2",),
    "stage2__steps": 1,
    "stage2__warmup_steps": 0,
}


@pytest.fixture(scope="module")
def folder():
    return trained_folder()


@pytest.fixture
def on(monkeypatch):
    """Makes this machine's processor pass for another."""
    return lambda text: monkeypatch.setattr(processor, "cpuinfo", lambda: text)


def config_of(folder, run, dtype, **changes):
    cache = str(folder / f"{run}-cache")
    changes = SHORT | {"model__dtype": dtype, "features__cache": cache} | changes
    return small_config(folder, run, **changes)


def recorded(folder, run, file="config.json"):
    return json.loads((folder / run / file).read_text())


def test_the_type_is_recorded_and_kept_on_another_processor(folder, on):
    on(processors.AVX2)
    training.train(config_of(folder, "auto", "auto"))
    inputs = recorded(folder, "auto", "inputs.json")
    assert recorded(folder, "auto")["model"]["dtype"] == "float32"
    assert inputs["features"]["dtype"] == "float32"
    adapter = (folder / "auto/adapter/model.safetensors").read_bytes()

    on(processors.AVX512_BF16)
    training.train(config_of(folder, "auto", "auto"))  # Only writes it again.
    assert recorded(folder, "auto", "inputs.json") == inputs
    assert (folder / "auto/adapter/model.safetensors").read_bytes() == adapter
    # Nor does it matter where the features are: they are made again in that type.
    training.train(config_of(folder, "auto", "auto", features__cache=f"{folder}/moved"))
    assert recorded(folder, "auto", "inputs.json") == inputs
    assert Usage.of(folder / "auto", None).model.dtype == "float32"
    with pytest.raises(UserError, match="differs in model.dtype, features.dtype"):
        other = f"{folder}/other-cache"
        training.train(config_of(folder, "auto", "bfloat16", features__cache=other))


def test_a_run_of_before_is_resumed_by_a_config_that_says_auto(folder, on):
    on(processors.AVX2)
    training.train(config_of(folder, "before", "bfloat16"))
    inputs = recorded(folder, "before", "inputs.json")
    training.train(config_of(folder, "before", "auto"))
    assert recorded(folder, "before")["model"]["dtype"] == "bfloat16"
    assert recorded(folder, "before", "inputs.json") == inputs


PRELUDE = """
from musilingo_jax.runtime import processor
processor.cpuinfo = lambda: {!r}
"""


@pytest.mark.quick("generate-more0")
@pytest.mark.parametrize(
    ("program", "more"),
    [("generate", ["--out={}/answers.jsonl"]), ("evaluate", ["--out={}/report"])],
)
def test_answers_are_resumed_on_another_processor(folder, tmp_path, program, more):
    """The identity of the answers is that of the run's type, so the file is kept."""
    training.train(config_of(folder, "asked", "float32"))

    def run(cpuinfo):
        return programs.run(
            program,
            *small_flags(
                folder,
                "asked",
                features__cache=folder / "asked-cache",
                model__dtype="auto",
                corpus__test_split="train",
            ),
            "--config.stages=('stage2',)",
            *(flag.format(tmp_path) for flag in more),
            env=COMPILED_ALIKE,
            prelude=PRELUDE.format(cpuinfo),
        )

    for cpuinfo in (processors.AVX512_BF16, processors.AVX2):
        done = run(cpuinfo)
        assert done.returncode == 0, done.stderr
    (answers,) = tmp_path.rglob("answers.jsonl")
    assert len(answers.read_text().splitlines()) > 1


def test_auto_may_be_given_for_the_embedded_model(folder, tmp_path):
    done = programs.run(
        "cache",
        "--config=features/tiny",
        "--config.model.dtype=auto",
        f"--config.corpus.path={folder / 'corpus/songs.jsonl'}",
        f"--config.features.cache={tmp_path / 'cache'}",
        env=COMPILED_ALIKE,
        prelude=PRELUDE.format(processors.AVX512_BF16),
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "cache/plans/000.json").read_text())
    assert plan["identity"]["dtype"] == "bfloat16"
