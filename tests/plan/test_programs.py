"""Plans of what is not training: encoding, reading prompts, decoding."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import cpu_slices, programs
from helpers.released_configs import MERT_95M, MERT_330M
from helpers.small_run import LANGUAGE_MODEL, ROOT

from musilingo_jax.answering.config import GREEDY
from musilingo_jax.models.int8 import quantize_language_model
from musilingo_jax.models.llama import Llama, unstacked
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.plan import compile, model_shapes, tables
from musilingo_jax.plan.answerer import AbstractAnswerer
from musilingo_jax.plan.decode_program import DecodeJob
from musilingo_jax.plan.encode_program import EncodeJob
from musilingo_jax.plan.hlo import Program
from musilingo_jax.plan.model_shapes import Shapes
from musilingo_jax.plan.read_program import PREFIX_SLOTS, ReadJob
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training import flops

TINY = LlamaConfig.from_dict(LANGUAGE_MODEL | {"vocab_size": 304})
MESH = {"data": 2, "fsdp": 2, "tensor": 2}
ANSWERER = AbstractAnswerer(
    shapes=Shapes(TINY, 16, "this test"),
    dtype="float32",
    quantization="",
    choice=GREEDY.choice,
    max_new_tokens=8,
)
ENCODER = replace(
    model_shapes.ENCODERS["m-a-p/MERT-v1-330M"],
    conv_dim=(8,) * 7,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    """Eight devices of this machine that pass for a v5e-8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Topology, "devices", lambda self: jax.devices()[:8])
        yield Topology.parse("v5e-8")


@pytest.fixture(scope="module")
def decoded(topology):
    return compile.make_plan(DecodeJob(ANSWERER, 6, 64, MESH, topology))


def shapes_of(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def test_encoders_known_by_name_are_the_released_ones():
    for name, released in (("330M", MERT_330M), ("95M", MERT_95M)):
        known = model_shapes.ENCODERS[f"m-a-p/MERT-v1-{name}"]
        # Whether the waveform is normalised stands in another file.
        assert known == replace(MertConfig.from_dict(released), do_normalize=True)
    with pytest.raises(UserError, match="--encoder_width"):
        model_shapes.encoder("./nowhere")


@pytest.mark.parametrize("quantization", ["", "int8"])
def test_an_abstract_model_is_the_one_that_is_loaded(topology, quantization):
    mesh = make_mesh(**MESH, devices=topology.devices())
    answerer = replace(ANSWERER, dtype="bfloat16", quantization=quantization)
    planned = answerer.reader(mesh).llama
    llama = Llama(TINY, rngs=nnx.Rngs(0))
    loaded = unstacked(quantize_language_model(llama) if quantization else llama)
    assert shapes_of(planned) == shapes_of(loaded)
    assert planned.cache_dtype == jnp.bfloat16
    # Heads, mlp and width are halved twice over two axes of two.
    kernel = max(jax.tree.leaves(planned.layers[0].up), key=lambda leaf: leaf.size)
    assert np.prod(kernel.sharding.shard_shape(kernel.shape)) == kernel.size / 4


def test_a_step_of_decoding_is_counted_once(decoded, topology):
    job = decoded.job
    assert decoded.fits and not decoded.unknown and not decoded.costs.unknown_loops
    # Six rows, and two more for four groups of devices.
    assert job.rows == 8
    memory = decoded.memory
    cache = 2 * TINY.depth * 8 * 64 * TINY.key_heads * TINY.head_dim * 4
    # An eighth of it, and where each row ends.
    assert memory["cache"] == cache / 8 + 8 * 4
    # Products of 2 rows, with half of the weights: more than the mathematics asks for
    # by what the devices of a group repeat.
    assert 1 <= decoded.costs.flops / decoded.model_flops < 2
    step = flops.layer_weights(TINY) * TINY.depth + TINY.width * TINY.vocab
    pairs = 4 * TINY.heads * TINY.head_dim * TINY.depth * 64
    assert job.model_flops == 8 * (2 * step + pairs)
    figures = decoded.figures
    assert figures["needed_bytes"] < memory["weights"] + memory["cache"]
    assert figures["bytes_over_needed"] == (
        decoded.costs.traffic / figures["needed_bytes"]
    )
    # On average half of the slots hold text. Without the kernel all of them are read.
    text_only = figures["needed_bytes"] - (memory["cache"] - 8 * 4) * (1 - 32.5 / 64)
    assert figures["ragged_bytes_over_needed"] == pytest.approx(
        decoded.costs.traffic / text_only, rel=0.02
    )
    assert figures["tokens_per_second"] == pytest.approx(
        8 / decoded.roofline.least_seconds
    )
    text = tables.describe(decoded)
    assert "one iteration of the program's loop" in text and "(weights + cache)" in text
    assert "| v5e-8 | decode | float32 | 2 × 2 × 2 | 8 rows of 64 |" in (
        tables.markdown([decoded])
    )


def test_a_program_without_one_endless_loop_has_no_iteration():
    def count(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    text = jax.jit(count).lower(shape).compile().as_text()
    iteration = Program(text).iteration()
    opcodes = {executed.instruction.opcode for executed in iteration.executed}
    assert "while" not in opcodes and not iteration.unknown_loops
    twice = jax.jit(lambda x: count(count(x) + 1)).lower(shape).compile().as_text()
    with pytest.raises(ValueError, match="2 loops without a known end"):
        Program(twice).iteration()
    none = jax.jit(lambda x: x @ x).lower(shape).compile().as_text()
    with pytest.raises(ValueError, match="0 loops without a known end"):
        Program(none).iteration()


def test_prompts_that_are_read(topology):
    job = ReadJob(ANSWERER, 4, 32, 2, 64, MESH, topology)
    plan = compile.make_plan(job)
    assert plan.fits and not plan.unknown and not plan.costs.unknown_loops
    assert set(plan.memory) >= {"weights", "cache", "bank", "batch", "adapter"}
    # Every query meets all slots of the cache; the mathematics, half of them.
    assert 1 < plan.costs.flops / plan.model_flops < 2.5
    pairs = sum(PREFIX_SLOTS + place for place in range(1, 33))
    layers = 2 * flops.layer_weights(TINY) * 32
    layers += 4 * TINY.heads * TINY.head_dim * pairs
    last = 2 * TINY.width * TINY.vocab
    assert job.model_flops == 4 * (TINY.depth * layers + last)
    numbers = plan.to_dict()
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["program"] == "read" and numbers["length"] == 32


def test_clips_that_are_encoded(topology):
    samples = 24_000
    job = EncodeJob(
        ENCODER, "this test", 6, samples, 25, "pooled", "float32", MESH, topology
    )
    plan = compile.make_plan(job)
    assert plan.fits and not plan.unknown and not plan.costs.unknown_loops
    assert job.rows == 8 and job.size == "8 clips of 1 s"
    assert plan.memory["batch"] == 2 * (4 * samples + 4)
    # Each of the two devices of a group convolves all; only heads and mlp are halved.
    assert 1 <= plan.costs.flops / plan.model_flops < 2.5
    assert plan.figures["times_real_time"] == pytest.approx(
        8 / plan.roofline.least_seconds
    )
    assert "× real time" in tables.describe(plan)


def test_model_flops_of_an_encoder_are_its_products():
    job = EncodeJob(
        ENCODER, "", 1, 24_000, 25, "pooled", "float32", MESH, Topology.parse("v5e-1")
    )
    length, channels, total = 24_000, 1, 0
    for kernel, stride in zip(ENCODER.conv_kernel, ENCODER.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        total += length * kernel * channels * 8
        channels = 8
    total += length * (8 * 32 + 8 * 32 * 8)  # The projection; groups of 8 channels.
    total += 3 * (length * (4 * 32 * 32 + 2 * 32 * 64) + 2 * length**2 * 32)
    assert job.model_flops == 4 * 2 * total  # Four groups of devices: a clip each.


@pytest.mark.medium
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--program=sing"], "--program=sing: choose train or encode"),
        (["--program=train,train"], "name each program once"),
        (["--program=encode", "--length=3"], "--length is for --program=train or read"),
        (["--batch=3"], "--batch is for --program=encode or read or decode"),
        (["--program=decode", "--search"], "--search is for --program=train"),
        (["--program=read", "--context=40"], "--context=40 has room for 0 tokens"),
        (["--program=encode", "--seconds=0.001"], "one frame takes"),
    ],
)
def test_wrong_command_lines(arguments, message):
    done = programs.run(
        "plan",
        "--config=configs/tiny.py",
        "--topology=v5e-1",
        *arguments,
        prelude=cpu_slices.PRELUDE,
    )
    assert done.returncode != 0 and done.stderr.startswith("error: ")
    assert message in done.stderr


def test_the_tpu_compiler_on_all_programs():
    pytest.importorskip("libtpu")
    command = [sys.executable, "-m", "musilingo_jax.plan", "--config=configs/tiny.py"]
    command += ["--topology=v5e-8", "--config.mesh.tensor=2", "--json"]
    command += ["--program=encode,read,decode", "--batch=24", "--context=600"]
    done = subprocess.run(
        [*command, "--seconds=2"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = {(p := json.loads(line))["program"]: p for line in done.stdout.splitlines()}
    assert list(said) == ["encode", "read", "decode"]
    for plan in said.values():
        assert plan["fits"] and not plan["unknown"] and not plan["unknown_loops"]
        assert plan["per_chip"]["flops"] > 0.9 * plan["per_chip"]["model_flops"]
    assert said["decode"]["batch"] == 24 and said["decode"]["context"] == 600
    assert said["decode"]["per_chip"]["traffic_outside"] > 0
