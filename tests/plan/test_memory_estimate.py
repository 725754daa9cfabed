"""Memory of an update by arithmetic, for devices that are not there."""

import dataclasses

import jax
import pytest
from flax import nnx
from helpers.small_run import load_config

from musilingo_jax.models.lora import MAPS, MapSizes, Tuning, TuningConfig
from musilingo_jax.plan import memory_estimate
from musilingo_jax.plan.model_shapes import LANGUAGE_MODELS, Shapes
from musilingo_jax.plan.train_program import TrainJob, largest_row
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.stage_config import StageConfig

LLAMA_2 = LANGUAGE_MODELS["meta-llama/Llama-2-7b-hf"]
BRIDGE = 608_273_434
TUNING = 41_340_928
KERNELS = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008)


def job(name, devices, **changes):
    config = load_config(name).get_config()
    stage_name = config.stages[-1]
    for key, value in changes.items():
        config[stage_name][key] = value
    stage = StageConfig.from_config(config, stage_name)
    bridge = dict(config.bridge) if "bridge" in config else None
    return TrainJob(
        name=stage_name,
        stage=stage,
        row=largest_row(stage, states=25 if bridge else 0),
        shapes=Shapes(LLAMA_2, 1024, "this test", 25),
        dtype="bfloat16",
        quantization="",
        mesh={},
        topology=memory_estimate.parse(devices),
        bridge=bridge,
    )


@pytest.mark.parametrize(
    "name, learns", [("pretrain_mu_llama", BRIDGE), ("finetune_mu_llama", TUNING)]
)
def test_both_stages_of_mu_llama_are_counted(name, learns):
    mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    found = memory_estimate.estimate(job(name, "1x80"), mesh)
    frozen = 0 if name.startswith("pre") else 4 * BRIDGE
    assert found.memory["learning"] == 4 * learns
    assert found.memory["optimiser"] == pytest.approx(8 * learns, abs=64)
    times = 2 if name.startswith("fine") else 1  # It accumulates.
    assert found.memory["gradient"] == times * 4 * learns
    llama = 2 * (KERNELS + 2 * 32_000 * 4096 + 65 * 4096)
    assert found.memory["weights"] == llama + frozen
    assert found.fits and found.total == sum(found.memory.values())
    assert "1 × 80 GiB" in memory_estimate.describe(found)


def test_eight_devices_share_what_names_axes():
    mesh = {"data": 1, "fsdp": 1, "tensor": -1}
    one = memory_estimate.estimate(job("pretrain_mu_llama", "1x80"), mesh)
    eight = memory_estimate.estimate(job("pretrain_mu_llama", "v5e-8"), mesh)
    assert eight.devices == "v5e-8" and eight.job.mesh["tensor"] == 8
    for part in ("weights", "learning", "optimiser"):
        assert one.memory[part] / 8.5 < eight.memory[part] < one.memory[part] / 6
    table = memory_estimate.markdown([one, eight]).splitlines()
    assert len(table) == 4 and table[3].startswith("| v5e-8 | bfloat16 | 1 × 1 × 8 |")


def test_lora_beside_a_bridge_that_splices():
    tuning = TuningConfig(rank=16, alpha=16.0, targets=MAPS, biases=(), norms=False)
    fresh = jax.eval_shape(
        lambda: Tuning.fresh(MapSizes.of(LLAMA_2), tuning, rngs=nnx.Rngs(0))
    )
    factors = sum(leaf.size for leaf in jax.tree.leaves(fresh))
    changed = job("finetune_music_qa", "1x24", rows=1, batch_size=1)
    stage = changed.stage
    changed = dataclasses.replace(
        changed, stage=dataclasses.replace(stage, tuning=tuning), quantization="int8"
    )
    mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    found = memory_estimate.estimate(changed, mesh)
    assert found.memory["learning"] == 4 * (factors + 1024 * 4096 + 4096)
    assert KERNELS < found.memory["weights"] < 1.2 * KERNELS


def test_what_does_not_fit_is_said():
    mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    found = memory_estimate.estimate(job("pretrain_mu_llama", "1x16"), mesh)
    assert not found.fits and "DOES NOT FIT" in memory_estimate.describe(found)
    assert found.to_dict()["fits"] is False


@pytest.mark.parametrize("name", ["v9z-8", "8x", "0x80", "8x0", "x"])
def test_devices_that_there_are_not(name):
    with pytest.raises(UserError, match="name a TPU slice, such as v5e-8, or devices"):
        memory_estimate.parse(name)


def test_a_mesh_must_take_all_devices():
    mesh = {"data": 3, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match="data=3, fsdp=1, tensor=1: there are 8 "):
        memory_estimate.estimate(job("pretrain_mu_llama", "8x80"), mesh)


def test_a_width_alone_does_not_say_how_many_states_there_are():
    lacking = dataclasses.replace(
        job("pretrain_mu_llama", "1x80"), shapes=Shapes(LLAMA_2, 1024, "this test")
    )
    mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match="--encoder_width does not say how many states"):
        memory_estimate.estimate(lacking, mesh)
