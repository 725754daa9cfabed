"""Conversions are exact, streamed, whole or not there; what makes no sense is refused.

The original's side is plain PyTorch here: its files, its sums, its `load_state_dict`.
"""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import types
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.convert import (
    inspection,
    musilingo_releases,
    vicuna_deltas,
    write_folders,
)
from musilingo_jax.models.llama_config import LinearScaling, Llama3Scaling, LlamaConfig
from musilingo_jax.pretrained import (
    safetensors_file,
    safetensors_writer,
    sources,
    tensor_files,
    tensor_map,
    weights,
)
from musilingo_jax.runtime import signals
from musilingo_jax.runtime.errors import UsageError, UserError

TINY = "musilingo-tiny"
SHARD_BYTES = 10**6
CONFIG = LlamaConfig(
    vocab=10,
    width=8,
    depth=2,
    heads=2,
    key_heads=2,
    head_dim=4,
    mlp_width=12,
    norm_eps=1e-6,
    rope_theta=1e4,
    rope_scaling=None,
    tied=False,
)
ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def write(plan, folder):
    write_folders.write(folder, plan, shard_bytes=SHARD_BYTES)
    return folder


def read(folder):
    """All tensors of a folder, as the safetensors library reads them for PyTorch."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_equal(found, expected):
    """Equal to the bit, types included."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def change(folder, change):
    """Rewrites the tensors of a folder."""
    save_file(change(read(folder)), folder / "model.safetensors")


def language_model(folder, config, dtype):
    """A folder of random weights; made without JAX, whose compiling takes seconds."""
    generator = torch.Generator().manual_seed(0)
    module, names, _ = weights.blueprint(
        sources.Part("language_model", "", folder, "", config.to_dict(), None)
    )
    content = {
        name: 0.2 * torch.randn(shape, generator=generator) + ("norm" in name)
        for name, (shape, _) in tensor_map.layout(
            module, names, dtype="float32"
        ).items()
    }
    folder.mkdir()
    content = {name: tensor.to(dtype) for name, tensor in content.items()}
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def save_tokenizer(folder, size):
    """Writes a tokenizer of letters."""
    letters = ["Ġ", *"abcdefghijklmnopqrstuvwxyz"][:size]
    pairs = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: n for n, letter in enumerate(letters)}, [])
    )
    pairs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = tokenizers.decoders.ByteLevel()
    pairs.save(str(folder / "tokenizer.json"))


def configure(folder, **said):
    """Changes what a `config.json` says."""
    config = json.loads((folder / "config.json").read_text()) | said
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The embedded model as a release; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "release"
    return write(musilingo_releases.export(TINY, TINY, TINY), folder)


@pytest.fixture
def base(tmp_path):
    return language_model(tmp_path / "base", CONFIG, torch.float16)


@pytest.fixture
def delta(base, tmp_path):
    """As published: one more row, rotary buffers, a tokenizer of its own."""
    folder = shutil.copytree(base, tmp_path / "delta")
    generator = torch.Generator().manual_seed(1)
    differences = {}
    for name, tensor in read(base).items():
        rows = (len(tensor) + (name in ROWS), *tensor.shape[1:])
        differences[name] = (0.02 * torch.randn(rows, generator=generator)).half()
    differences["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)
    save_file(differences, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 11}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(b"the delta's")
    (folder / "training.py").write_text("raise SystemExit")
    return folder


def test_pytorch_files_become_safetensors(tmp_path):
    part = sources.find(TINY, "language_model")
    (tmp_path / "theirs").mkdir()
    for path in write_folders.small_files(part.folder):
        shutil.copy(path, tmp_path / "theirs")
    shutil.copy(part.folder / "config.json", tmp_path / "theirs")
    content = read(part.folder)
    torch.save(content, tmp_path / "theirs" / "pytorch_model.bin")
    out = write(convert.safetensors(str(tmp_path / "theirs")), tmp_path / "ours")
    assert_equal(read(out), content)
    assert len(list(out.glob("model-0000*-of-00003.safetensors"))) == 3
    assert weights.digest(out, "language_model") == weights.digest(
        TINY, "language_model"
    )


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

    refused("is given as base and as delta", delta=base)
    refused("is given as base and as delta", delta=base / ".." / "base")
    refused("2: is a delta itself", base=configured("2", delta))
    refused("is no delta but a model", delta=configured("3", base))
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
        r"7: the tensors are not .*missing: model.layers.\{0,1\}.self_attn.k_proj"
        r".*misshapen: .*q_proj.weight \[3, 8\] instead of \[8, 8\]",
        delta=wrong,
    )
    huge, head = configured("8", base), "lm_head.weight"
    change(huge, lambda content: content | {head: 0 * content[head] + 65504})
    changed = configured("9", delta)
    change(changed, lambda content: content | {head: 0 * content[head] + 100})
    refused("lm_head.weight: the sum is too large", base=huge, delta=changed)


def test_a_release_is_written_split_and_written_again(tmp_path):
    whole = write(musilingo_releases.export(TINY, TINY, TINY), tmp_path / "whole")
    names = set(read(whole))
    assert {
        "model.audio_encoder.encoder.layers.3.attention.q_proj.weight",
        "model.audio_encoder.encoder.layer_norm.bias",
        "model.llama_proj.weight",
        "model.llama_proj.bias",
        "model.llama_model.model.embed_tokens.weight",
        "model.llama_model.model.layers.3.mlp.up_proj.weight",
        "model.llama_model.lm_head.weight",
    } <= names
    config = json.loads((whole / "config.json").read_text())
    assert config["model_type"] == "musilingo"
    assert config["hidden_size"] == 128  # The language model's, as released.
    assert config["prompt_template"] == "###Human: {} ###Assistant: "
    parts = write(musilingo_releases.split(str(whole)), tmp_path / "parts")
    for kind in sources.KINDS:
        original = sources.find(TINY, kind)
        assert_equal(read(parts / kind), read(original.folder))
        for place in (whole, parts, parts / kind):
            assert weights.digest(place, kind) == weights.digest(TINY, kind)
    mert = weights.load_encoder(parts / "encoder", dtype="float32", mesh=None)
    assert mert.config == weights.blueprint(sources.find(TINY, "encoder")).module.config
    assert_equal(
        read(write(musilingo_releases.export(*[str(parts)] * 3), tmp_path / "again")),
        read(whole),
    )
    with pytest.raises(UserError, match="no language_model and no adapter"):
        musilingo_releases.split(str(parts / "encoder"))


def test_parts_that_do_not_fit_are_not_made_one(base, delta, tmp_path):
    pattern = "leads from width 192 to 128, but musilingo-tiny has width 192 and .* 8;"
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.export(TINY, str(base), TINY)
    narrow = tmp_path / "narrow"
    content = {"llama_proj.weight": torch.zeros(8, 192)}
    torch.save(content | {"llama_proj.bias": torch.zeros(8)}, tmp_path / "a.pth")
    write(
        musilingo_releases.adapter(str(tmp_path / "a.pth"), window_frames=325), narrow
    )
    with pytest.raises(UserError, match="delta: is only a delta; merge it first"):
        musilingo_releases.export(TINY, str(delta), str(narrow))


def test_adapters_come_and_go(tmp_path):
    class Original(torch.nn.Module):
        """What of the authors' model matters: other parameters, and the one map."""

        def __init__(self):
            super().__init__()
            self.llama_model = torch.nn.Linear(5, 5)
            self.llama_proj = torch.nn.Linear(24, 16)

    original = Original()
    learnt = {
        name: value
        for name, value in original.state_dict().items()
        if name.startswith("llama_proj")
    }
    checkpoint = {"model": learnt, "optimizer": {"step": 3}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "checkpoint_3.pth")
    plan = musilingo_releases.adapter(
        str(tmp_path / "checkpoint_3.pth"), window_frames=325
    )
    folder = write(plan, tmp_path / "ours")
    loaded = weights.load_adapter(folder, mesh=None)
    np.testing.assert_array_equal(
        loaded.projection.kernel[...], original.llama_proj.weight.detach().numpy().T
    )
    assert sources.find(folder, "adapter").config["window_frames"] == 325

    exported = read(
        write(musilingo_releases.export_adapter(str(folder)), tmp_path / "exported")
    )
    assert_equal(exported, learnt)
    other = Original()
    result = other.load_state_dict(exported, strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) == {"llama_model.weight", "llama_model.bias"}
    assert torch.equal(other.llama_proj.weight, original.llama_proj.weight)

    again = musilingo_releases.adapter(str(tmp_path / "exported"), window_frames=325)
    assert_equal(read(write(again, tmp_path / "again")), learnt)
    whole = write(musilingo_releases.export(TINY, TINY, TINY), tmp_path / "whole")
    out = write(
        musilingo_releases.adapter(str(whole), window_frames=108), tmp_path / "out"
    )
    assert weights.digest(out, "adapter") == weights.digest(TINY, "adapter")


@pytest.mark.parametrize(
    "content, pattern",
    [
        ({"other": torch.zeros(2)}, "holds no adapter, .*but other"),
        ({"llama_proj.weight": torch.zeros(2)}, "holds no adapter"),
        ({"llama_proj.weight": torch.zeros(2, 3)}, "missing: llama_proj.bias"),
        (
            {"llama_proj.weight": torch.zeros(2, 3), "llama_proj.bias": torch.zeros(3)},
            r"llama_proj.bias \[3\] instead of \[2\]",
        ),
        (
            {
                "llama_proj.weight": torch.zeros(2, 3),
                "llama_proj.bias": torch.zeros(2),
                "lora.weight": torch.zeros(2),
            },
            "unused: lora.weight",
        ),
    ],
)
def test_what_is_no_adapter(tmp_path, content, pattern):
    torch.save({"model": content}, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.adapter(str(tmp_path / "checkpoint.pth"), window_frames=325)
    with pytest.raises(UserError, match=r"nothing.pth: there is no such file"):
        musilingo_releases.adapter(str(tmp_path / "nothing.pth"), window_frames=325)


def test_a_prompt_that_a_release_cannot_say(tmp_path):
    folder = shutil.copytree(sources.resolve(TINY), tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["stage2"]["prompt"]["template"] = "Q: {} A: "
    (folder / "config.json").write_text(json.dumps(config))
    for adapter in (folder, folder / "adapter"):
        (plan,) = musilingo_releases.export(TINY, TINY, str(adapter))
        assert plan.config["prompt_template"] == "Q: {} A: "
    config["stage2"]["prompt"]["end_sign"] = "END"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match="trained with end_sign 'END'.*always has '###'"
    ):
        musilingo_releases.export(TINY, TINY, str(folder))


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    (plan,) = musilingo_releases.export_adapter(TINY)
    out, partial = tmp_path / "deep" / "out", tmp_path / "deep" / "out.partial"
    for error in (UserError("broken"), KeyboardInterrupt(), ValueError("bug")):

        def fail(error=error):
            raise error

        last = replace(plan.pieces["llama_proj.bias"], read=fail)
        broken = replace(plan, pieces=plan.pieces | {"llama_proj.bias": last})
        with pytest.raises(type(error)):
            write([broken], out)
        assert not out.exists() and not partial.exists()
    partial.mkdir(parents=True)  # Left behind by a kill.
    (partial / write_folders._MARK).touch()
    (partial / "encoder").mkdir()
    (partial / "model.safetensors.partial").write_text("half")
    out.mkdir()
    write([plan], out)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert not partial.exists()
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="is there and not empty; choose another --out"):
        write([plan], out)
    with pytest.raises(UserError, match="is there and not empty"):
        write([plan], out / "config.json")
    assert (out / "model.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="cannot be written"):
        write([plan], out / "config.json" / "below")
    full = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"needs 0.07 GB, which is 68 MB more than"):
        write([plan], tmp_path / "full")
    assert not (tmp_path / "full").exists()


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
    tracemalloc.start()
    write([write_folders.Output(pieces, None)], tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert torch.equal(read(tmp_path / "out")["23"], torch.ones(512, 1024).half())


def run(monkeypatch, *arguments, **flags):
    values = dict.fromkeys(("out", "inspect", *convert._FLAGS))
    values |= {"json": False, "shard_gb": 5.0} | flags
    given = types.SimpleNamespace(FLAGS=types.SimpleNamespace(**values))
    monkeypatch.setattr(convert, "flags", given)
    convert.main(["convert", *map(str, arguments)])


def test_the_command_line(base, delta, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "merge", base=base, delta=delta, out=tmp_path / "merged")
    run(monkeypatch, "export", TINY, out=tmp_path / "whole")
    run(
        monkeypatch, "split", tmp_path / "whole", out=tmp_path / "parts", shard_gb=0.001
    )
    assert len(list((tmp_path / "parts/encoder").glob("*.safetensors"))) > 2
    run(monkeypatch, "export", adapter=TINY, out=tmp_path / "adapter")
    run(monkeypatch, "safetensors", base, out=tmp_path / "copy")
    assert_equal(read(tmp_path / "copy"), read(base))
    assert capsys.readouterr().out.endswith("copy: complete\n")


@pytest.mark.parametrize(
    "arguments, flags, pattern",
    [
        ([], {}, r"name a conversion: .*safetensors\|merge\|split\|adapter\|export"),
        (["shrink"], {"out": "x"}, "shrink is no conversion"),
        (["split", "a"], {}, "--out is missing: .* split SOURCE --out=DIR"),
        (["split"], {"out": "x"}, "name a source: .* split SOURCE --out=DIR"),
        (["split", "a", "b"], {"out": "x"}, "too many sources"),
        (["merge"], {"out": "x", "base": "a"}, "name both --base and --delta"),
        (["split", "a"], {"out": "x", "base": "a"}, "--base has no meaning here"),
        (["export"], {"out": "x", "encoder": "a"}, "name all three parts, or the"),
        (["split", "a"], {"out": "x", "json": True}, "--json goes with --inspect"),
        (["split", "a"], {"inspect": "x"}, "--inspect stands alone"),
        ([], {"inspect": ""}, "--inspect is empty; name a source"),
        (["split", ""], {"out": "x"}, "the source is empty"),
        (["split", "a"], {"out": "x", "window_frames": 5}, "--window_frames has no"),
        (["split", "a"], {"out": "x", "mert_model": "a/b"}, "--mert_model has no"),
        (["split", "a"], {"out": "x", "shard_gb": math.nan}, "--shard_gb=nan"),
        (["split", "a"], {"out": "x", "shard_gb": math.inf}, "--shard_gb=inf"),
        (
            ["export"],
            {"out": "x", "adapter": TINY, "llama_model": "a/b"},
            "an adapter alone names no other models",
        ),
    ],
)
def test_wrong_command_lines(monkeypatch, arguments, flags, pattern):
    with pytest.raises(UsageError, match=pattern):
        run(monkeypatch, *arguments, **flags)


def test_the_program(tmp_path):
    def program(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "musilingo_jax.convert", *map(str, arguments)],
            capture_output=True,
            text=True,
        )

    done = program("split", TINY, f"--out={tmp_path / 'parts'}")
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr and "B/s" in done.stderr  # The bar.
    wrong = program("split", TINY, f"--out={tmp_path / 'parts'}")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert "is there and not empty" in wrong.stderr
    found = program("--inspect", tmp_path / "parts", "--json")
    assert [*json.loads(found.stdout)["parts"]] == [*sources.KINDS]


def test_inspection_reads_headers(base, tmp_path, monkeypatch):
    read_tensors = []
    whole = safetensors_file.Tensor.__getitem__

    def noticed(tensor, index):
        read_tensors.append(tensor.nbytes)
        return whole(tensor, index)

    monkeypatch.setattr(safetensors_file.Tensor, "__getitem__", noticed)
    encoder, language_model, adapter = inspection.inspect(TINY)
    assert read_tensors == [256]  # The norm that tells a model from a delta.
    assert all(report.loads for report in (encoder, language_model, adapter))
    assert encoder.family == "MERT, pre-norm, constant-Q bins"
    assert language_model.family == "LLaMA-1-like, rope base 10,000"
    assert encoder.shapes["width"] == adapter.shapes["width"] == 192
    assert encoder.dtypes == {"F16": len(encoder.tensors)}
    theirs = transformers.LlamaForCausalLM.from_pretrained(
        sources.resolve(TINY) / "language_model"
    )
    assert language_model.parameters == theirs.num_parameters()
    assert adapter.parameters == 192 * 128 + 128
    assert adapter.bytes == 4 * adapter.parameters
    text = inspection.table([encoder, language_model, adapter])
    assert "adapter         one linear map                   loads" in text
    assert any(line.split()[0] == "parameters" for line in text.splitlines() if line)
    said = json.loads(json.dumps(inspection.as_json(TINY, [adapter])))
    assert said["parts"]["adapter"]["tensors"]["llama_proj.bias"] == {
        "dtype": "F32",
        "shape": [128],
    }


def test_inspection_tells_families(tmp_path):
    def family(name, **said):
        folder = tmp_path / name
        language_model(folder, replace(CONFIG, **said), torch.bfloat16)
        save_tokenizer(folder, CONFIG.vocab)
        (report,) = inspection.inspect(str(folder))
        assert report.loads, report.reason
        assert report.dtypes == {"BF16": len(report.tensors)}
        return report.family

    assert family("1", norm_eps=1e-5) == "LLaMA-2-like, rope base 10,000"
    assert family("2", norm_eps=1e-5, rope_scaling=LinearScaling(4.0)).endswith(
        "rope base 10,000, linear scaling by 4"
    )
    scaling = Llama3Scaling(32.0, 1.0, 4.0, 8192)
    assert (
        family("3", rope_theta=5e5, rope_scaling=scaling, key_heads=1, tied=True)
        == "LLaMA-3-like, rope base 500,000, llama3 scaling by 32, grouped-query "
        "attention, tied head"
    )


def test_inspection_says_why_not(base, delta, tmp_path):
    def reason(folder):
        (report,) = inspection.inspect(str(folder))
        assert not report.loads
        assert report.reason in inspection.table([report])
        return report.family, report.reason

    family, why = reason(delta)
    assert family == "unmerged delta of LLaMA-1-like, rope base 10,000"
    assert "merge them with `convert merge`" in why
    change(base, lambda content: content | {"extra": torch.zeros(2)})
    assert "unused: extra" in reason(base)[1]
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"new_trick": 3}))
    (report,) = inspection.inspect(str(base))
    assert report.family == "unknown" and "new_trick" in report.reason
    assert report.parameters > 0
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "broken or cut off" in reason(base)[1]


LEARNT = {"llama_proj.weight": torch.ones(4, 3), "llama_proj.bias": torch.ones(4)}
BUFFERS = {
    f"llama_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(2)
    for layer in range(2)
}


@pytest.mark.parametrize(
    "content",
    [
        {"model": LEARNT | BUFFERS, "epoch": 3},
        {"state_dict": LEARNT},
        {"model": {f"module.{name}": t for name, t in (LEARNT | BUFFERS).items()}},
    ],
)
def test_what_trainers_save_beside_an_adapter(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pth")
    plan = musilingo_releases.adapter(
        str(tmp_path / "checkpoint.pth"), window_frames=None
    )
    assert_equal(read(write(plan, tmp_path / "ours")), LEARNT)
    assert plan[0].config["window_frames"] == 325


def test_the_frames_of_an_adapter_stay_what_they_are(whole, tmp_path):
    def frames(source, given=None):
        (plan,) = musilingo_releases.adapter(str(source), window_frames=given)
        return plan.config["window_frames"]

    for source in (TINY, f"{TINY}/adapter", whole):
        assert frames(source) == 108
    assert frames(whole, given=7) == 7
    for number, wrong in enumerate(("x", -3, 0, 2.5, True, None)):
        folder = shutil.copytree(
            sources.resolve(TINY) / "adapter", tmp_path / f"{number}"
        )
        configure(folder, window_frames=wrong)
        for convert_it in (
            frames,
            musilingo_releases.export_adapter,
            lambda folder: musilingo_releases.export(TINY, TINY, folder),
        ):
            with pytest.raises(UserError, match="window_frames = .* no number of fra"):
                convert_it(str(folder))
    copy = shutil.copytree(whole, tmp_path / "copy")
    configure(copy, window_frames="x")
    with pytest.raises(UserError, match="window_frames = 'x' is no number of frames"):
        musilingo_releases.split(str(copy))


def test_a_split_keeps_how_questions_are_put(whole, tmp_path):
    release = shutil.copytree(whole, tmp_path / "release")
    configure(release, prompt_template="Q: {} A: ")
    parts = write(musilingo_releases.split(str(release)), tmp_path / "parts")
    for adapter in (parts, parts / "adapter"):
        (again,) = musilingo_releases.export(str(parts), str(parts), str(adapter))
        assert again.config["prompt_template"] == "Q: {} A: "
    for wrong in (5, "no slot", "{} and {}"):
        configure(release, prompt_template=wrong)
        for made in (
            musilingo_releases.split,
            lambda source: musilingo_releases.export(*[source] * 3),
        ):
            with pytest.raises(UserError, match="prompt_template = .* is no text with"):
                made(str(release))


@pytest.mark.parametrize(
    "changed, pattern",
    [
        (lambda name: "layers.2.attention.q" in name, "missing: encoder.*q_proj.bias"),
        (lambda name: "llama_model.model.norm" in name, "missing: model.norm.weight"),
        (lambda name: "audio_encoder" in name, "missing: .*"),
    ],
)
def test_no_half_of_a_model_is_split_or_exported(whole, tmp_path, changed, pattern):
    broken = shutil.copytree(whole, tmp_path / "broken")
    for file in broken.glob("*.safetensors*"):
        file.unlink()
    change_to = {n: t for n, t in read(whole).items() if not changed(n)}
    save_file(change_to, broken / "model.safetensors")
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.split(str(broken))
    with pytest.raises(UserError, match=pattern):
        musilingo_releases.export(*[str(broken)] * 3)


def test_an_adapter_with_more_is_not_exported_alone(tmp_path):
    folder = shutil.copytree(sources.resolve(TINY) / "adapter", tmp_path / "adapter")
    change(folder, lambda content: content | {"extra": torch.zeros(2)})
    with pytest.raises(UserError, match="unused: extra"):
        musilingo_releases.export_adapter(str(folder))


def test_an_export_names_the_models_that_it_was_made_of(whole, tmp_path):
    def names(*made, **given):
        (plan,) = musilingo_releases.export(*made, **given)
        return plan.config["mert_model"], plan.config["llama_model"]

    places = [str(sources.find(TINY, kind).folder) for kind in sources.KINDS[:2]]
    run = tmp_path / "run"
    shutil.copytree(sources.resolve(TINY) / "adapter", run / "adapter")
    run_config = json.loads((sources.resolve(TINY) / "config.json").read_text())
    run_config["model"] = {"pretrained": TINY, "adapter": "random", "dtype": "float32"}
    (run / "config.json").write_text(json.dumps(run_config))
    for source in (TINY, run, whole):
        assert names(*[str(source)] * 3) == tuple(places)
    release = shutil.copytree(whole, tmp_path / "release")
    configure(release, mert_model="m-a-p/MERT-v1-330M", llama_model="some/vicuna")
    run_config["model"]["pretrained"] = str(release)
    (run / "config.json").write_text(json.dumps(run_config))
    for source in (release, run):
        found = names(*[str(source)] * 3)
        assert found == ("m-a-p/MERT-v1-330M", "some/vicuna")
    given = {"mert_model": "a/b", "llama_model": "c/d"}
    assert names(TINY, TINY, TINY, **given) == ("a/b", "c/d")


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


def test_out_may_be_a_link(tmp_path):
    plan = musilingo_releases.export_adapter(TINY)
    (tmp_path / "real").mkdir()
    for name, target in {"full": "real", "dangling": "there/below"}.items():
        link = tmp_path / name
        link.symlink_to(tmp_path / target)
        write(plan, link)
        assert link.is_symlink()
        assert (tmp_path / target / "config.json").is_file()
        with pytest.raises(UserError, match="is there and not empty"):
            write(plan, link)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UserError, match="circle: "):
        write(plan, tmp_path / "circle")
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_finished_is_kept(tmp_path, monkeypatch):
    plan, out = musilingo_releases.export_adapter(TINY), tmp_path / "out"

    def busy(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", busy)
        with pytest.raises(
            UserError, match=r"is complete, .*busy.*out.partial: give it"
        ):
            write(plan, out)
    partial = tmp_path / "out.partial"
    assert_equal(read(partial), read(sources.resolve(TINY) / "adapter"))
    assert {p.name for p in partial.iterdir()} == {"config.json", "model.safetensors"}
    with pytest.raises(UserError, match="must stay; move it, or choose another --out"):
        write(plan, out)
    assert (partial / "config.json").is_file()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    with pytest.raises(UserError, match="out: is a whole disk.* like .*out/model"):
        write(plan, out)


def test_what_others_put_where_a_conversion_would_write_stays(tmp_path):
    partial = tmp_path / "out.partial"
    (partial / "folder").mkdir(parents=True)
    (partial / "lock").touch()
    with pytest.raises(UserError, match="is there and no unfinished conversion"):
        write(musilingo_releases.export_adapter(TINY), tmp_path / "out")
    assert {path.name for path in partial.iterdir()} == {"folder", "lock"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ["copyfile", "fsync"])
def test_small_files_fill_the_disk_as_well(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = musilingo_releases.split(TINY)
    monkeypatch.setattr({"copyfile": shutil, "fsync": os}[call], call, full)
    with pytest.raises(UserError, match="the disk is full; make room"):
        write(plan, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_sigterm_leaves_nothing(tmp_path, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)

    def told(*_):
        assert (tmp_path / "out.partial").exists()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(safetensors_writer.SafetensorsWriter, "write", told)
    # Without a handler of its own the program, here the tests, would be gone.
    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("was not heard"))
    try:
        with pytest.raises(SystemExit) as ended, signals.raise_at_once():
            run(monkeypatch, "export", adapter=TINY, out=tmp_path / "out")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "nothing was kept" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_merge_says_how_to_check_it(base, delta, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "merge", base=base, delta=delta, out=tmp_path / "merged")
    assert "ask the merged model something" in capsys.readouterr().out
    run(monkeypatch, "safetensors", base, out=tmp_path / "copy")
    assert "ask the" not in capsys.readouterr().out


def test_a_file_is_no_folder(tmp_path):
    file = sources.resolve(TINY) / "adapter" / "model.safetensors"
    (plan,) = musilingo_releases.adapter(str(file), window_frames=None)
    assert_equal(read(write([plan], tmp_path / "out")), load_file(file))
    for made in (convert.safetensors, musilingo_releases.split, inspection.inspect):
        with pytest.raises(
            UserError, match="model.safetensors: is a file; name the fo"
        ):
            made(str(file))


def test_inspection_looks_for_a_tokenizer(base):
    def reason():
        (report,) = inspection.inspect(str(base))
        assert report.loads == (not report.reason)
        assert report.family == "LLaMA-1-like, rope base 10,000"
        return report.reason

    assert "base: has no tokenizer" in reason()
    save_tokenizer(base, CONFIG.vocab + 1)
    assert (
        "the tokenizer has 11 tokens but the language model embeds only 10" in reason()
    )
    save_tokenizer(base, CONFIG.vocab)
    assert reason() == ""
    (base / "tokenizer.json").write_text("{")
    assert "is not JSON" in reason()


def test_inspection_of_what_is_elsewhere_looks_whether_there_is_one(base, monkeypatch):
    there = sources.glance(base, "language_model")
    there = replace(there, remote=("some/model", ""))
    content = tensor_files.open_tensors(base)
    monkeypatch.setattr(sources.Part, "tensors", lambda part: content)
    monkeypatch.setattr(sources, "glance", lambda source, kind: there)
    (report,) = inspection.inspect(str(base))
    assert not report.loads and "has no tokenizer" in report.reason
    there = replace(there, tokenizer=base)
    (report,) = inspection.inspect(str(base))
    assert report.loads


def test_inspection_counts_what_is_used(base, tmp_path):
    (before,) = inspection.inspect(str(base))
    layer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change(base, lambda content: content | {layer: torch.ones(2)})
    (report,) = inspection.inspect(str(base))
    assert report.parameters == before.parameters
    assert layer in report.tensors
    encoder = shutil.copytree(sources.resolve(TINY) / "encoder", tmp_path / "encoder")
    (before,) = inspection.inspect(str(encoder))
    change(encoder, lambda content: content | {"masked_spec_embed": torch.ones(192)})
    (report,) = inspection.inspect(str(encoder))
    assert report.loads and report.parameters == before.parameters
