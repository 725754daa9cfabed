"""A merge is the authors' sum to the bit; a base that does not fit is refused."""

import json
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from helpers.model_folders import (
    CONFIG,
    ROWS,
    assert_equal,
    change,
    configure,
    language_model,
    read,
    write,
)

from musilingo_jax.convert import vicuna_deltas
from musilingo_jax.models.llama_config import LinearScaling
from musilingo_jax.pretrained import (
    safetensors_writer,
    tensor_files,
    weights,
    write_folders,
)
from musilingo_jax.runtime.errors import UserError


@pytest.mark.parametrize("block", [20, vicuna_deltas._BLOCK])
def test_a_merge_is_the_sum_that_the_authors_made(
    base, delta, tmp_path, monkeypatch, block
):
    monkeypatch.setattr(vicuna_deltas, "_BLOCK", block)
    out = write(vicuna_deltas.merge(str(base), str(delta)), tmp_path / "out")
    bases, differences = read(base), read(delta)
    expected = {}
    for name, tensor in bases.items():
        if name in ROWS:
            tensor = torch.cat([tensor, torch.zeros_like(tensor[:1])])
        expected[name] = tensor + differences[name]  # In float16, as they did.
    assert_equal(read(out), expected)
    assert (out / "tokenizer.model").read_bytes() == b"the delta's"
    assert not (out / "training.py").exists()
    loaded = weights.load_language_model(
        out, dtype="float32", quantization="", mesh=None
    )
    assert loaded.embedding.shape == (11, 8)
    theirs = transformers.LlamaForCausalLM.from_pretrained(out, dtype=torch.float16)
    assert_equal(dict(theirs.state_dict()), expected)


def test_a_sum_is_that_of_float16_for_all_of_its_numbers():
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    shuffled = np.random.default_rng(0).permutation(numbers)
    with np.errstate(over="ignore"):
        expected = numbers + shuffled
    total, overflow = vicuna_deltas._sum(numbers, shuffled)
    np.testing.assert_array_equal(
        np.asarray(total).view(np.uint16), expected.view(np.uint16)
    )
    assert overflow == np.isinf(expected).any()


def test_merges_that_make_no_sense(base, delta, tmp_path):
    def refused(pattern, *, base=base, delta=delta):
        with pytest.raises(UserError, match=pattern):
            write(vicuna_deltas.merge(str(base), str(delta)), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.partial").exists()

    def configured(name, source, **said):
        folder = shutil.copytree(source, tmp_path / name)
        config = json.loads((folder / "config.json").read_text()) | said
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    refused("is both base and delta", delta=base)
    refused("is both base and delta", delta=base / ".." / "base")
    refused("2: is a delta itself", base=configured("2", delta))
    refused("is not a delta but a model", delta=configured("3", base))
    llama2 = configured("4", base, rms_norm_eps=1e-5)
    refused("do not belong together: they have norm_eps 1e-05 and 1e-06", base=llama2)
    scaled = language_model(
        tmp_path / "5",
        replace(CONFIG, rope_scaling=LinearScaling(2.0)),
        torch.float16,
    )
    refused("rope_scaling LinearScaling.* and None", base=scaled)
    wide = configured("6", base, vocab_size=12)
    refused("vocab 12 and only 11", base=wide)
    wrong = configured("7", delta)
    change(
        wrong,
        lambda content: {
            name: tensor[:3] if "q_proj" in name else tensor
            for name, tensor in content.items()
            if "k_proj" not in name
        },
    )
    refused(
        r"7: the tensors do not fit .*missing: model.layers.\{0,1\}.self_attn.k_proj"
        r".*misshapen: .*q_proj.weight \[3, 8\] instead of \[8, 8\]",
        delta=wrong,
    )
    huge, head = configured("8", base), "lm_head.weight"
    change(huge, lambda content: content | {head: 0 * content[head] + 65504})
    changed = configured("9", delta)
    change(changed, lambda content: content | {head: 0 * content[head] + 100})
    refused("lm_head.weight: the sum is too large", base=huge, delta=changed)
    damaged = configured("10", base)
    change(damaged, lambda content: content | {head: content[head] / 0})
    refused(r"10: lm_head.weight contains (NaN|infinity)", base=damaged)


def test_a_merge_holds_a_few_tensors(tmp_path):
    """24 tensors of 1 MB each, of which no more than a handful may be in memory."""
    layout = {f"{n}": ((512, 1024), np.dtype(np.float16)) for n in range(24)}
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        with safetensors_writer.SafetensorsWriter(
            folder, layout, shard_bytes=10**7, metadata={}
        ) as writer:
            for name, (shape, dtype) in layout.items():
                writer.write(name, np.full(shape, 0.5, dtype))
    bases, differences = map(tensor_files.open_tensors, folders)
    pieces = {
        name: write_folders.FolderPart(
            shape,
            dtype,
            lambda name=name: vicuna_deltas._add(name, bases[name], differences[name]),
        )
        for name, (shape, dtype) in layout.items()
    }
    pieces["0"].read()  # Compiles, which takes memory of its own.
    tracemalloc.start()
    write([write_folders.Output(pieces, None)], tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two at a time, one of which is written while the other is read: a base, a delta,
    # their sum and a copy of it each; and 2 MB for everything else.
    assert peak < (2 * 4 + 2) * 2**20
    assert torch.equal(read(tmp_path / "out")["23"], torch.ones(512, 1024).half())


def test_a_tied_head_that_only_one_of_base_and_delta_has(base, delta, tmp_path):
    def headless(content):
        return {name: t for name, t in content.items() if "lm_head" not in name}

    for folder in (base, delta):
        configure(folder, tie_word_embeddings=True)
    change(base, headless)
    expected = headless(read(base))
    merged = read(write(vicuna_deltas.merge(str(base), str(delta)), tmp_path / "1"))
    assert set(merged) == set(expected)
    change(delta, headless)
    change(base, lambda content: content | {"lm_head.weight": torch.ones(10, 8)})
    assert_equal(
        read(write(vicuna_deltas.merge(str(base), str(delta)), tmp_path / "2")), merged
    )
