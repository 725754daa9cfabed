"""Whatever is in a file, it is read, or refused in a sentence that names the file."""

import io
import json
import zipfile

import pytest
import torch
from helpers.lora_folders import SETTINGS, factors, write_lora
from helpers.meta_folders import LLAMA_3, hub_model, meta_tensors, write_meta
from helpers.model_folders import CONFIG, language_model
from helpers.small_tensors import ARRAYS, layout, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.pretrained import (
    model_folder,
    pytorch_files,
    pytorch_writer,
    sources,
    tensor_files,
    tokenizer,
    weights,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_json

pytestmark = pytest.mark.medium

EMBEDDED = model_folder.resolve("musilingo-tiny")

# The same examples in every run.
seeded = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "repeat", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([10**29, 2**31, 2**63, 1e308, float("inf"), float("nan")]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4)),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=4), inside)
    ),
    max_leaves=4,
)


def edited(content, edits):
    """The bytes after some damage; a place is a part of the length."""
    content = bytearray(content)
    for kind, part, bits in edits:
        place = int(part * len(content))
        match kind:
            case "flip" if content:
                content[place] ^= bits[0] or 1
            case "insert":
                content[place:place] = bits
            case "delete":
                del content[place : place + len(bits)]
            case "repeat":
                content[place:place] = content[place : place + 50]
            case "cut":
                del content[place:]
    return bytes(content)


def read_all(opened):
    for tensor in opened.values():
        array = tensor[...]
        assert array.shape == tuple(tensor.shape)
        assert array.nbytes == tensor.nbytes


def value_or_refusal(path, read):
    """Whether something was read; if not, the message must name the file."""
    try:
        read()
    except UserError as error:
        assert str(path) in str(error), error
        assert "\n" not in str(error), error
        str(error).encode()
        return False
    return True


@seeded
@given(EDITS)
def test_safetensors_with_damaged_bytes(tmp_path, edits):
    path = tmp_path / "model.safetensors"
    write(tmp_path, ARRAYS)
    path.write_bytes(edited(path.read_bytes(), edits))
    value_or_refusal(path, lambda: read_all(tensor_files.open_tensors(tmp_path)))


@seeded
@given(
    st.dictionaries(
        st.one_of(st.text(max_size=5), st.just("\ud800\x1b[1m")),
        st.one_of(
            VALUES,
            st.fixed_dictionaries(
                {
                    "dtype": st.one_of(st.sampled_from(["F32", "BOOL", "F4"]), VALUES),
                    "shape": st.one_of(st.lists(NUMBERS, max_size=3), VALUES),
                    "data_offsets": st.one_of(
                        st.lists(NUMBERS, min_size=2, max_size=2), VALUES
                    ),
                }
            ),
        ),
        max_size=3,
    ),
    st.integers(0, 8),
)
def test_safetensors_with_another_header(tmp_path, header, size):
    path = tmp_path / "model.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    value_or_refusal(path, lambda: read_all(tensor_files.open_tensors(tmp_path)))


@seeded
@given(EDITS)
def test_an_index_with_damaged_bytes(tmp_path, edits):
    write(tmp_path, ARRAYS, shard_bytes=100)
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(edited(path.read_bytes(), edits))
    value_or_refusal(tmp_path, lambda: read_all(tensor_files.open_tensors(tmp_path)))


# Sixty times, a pair of the value on the stack: as a text, it would have 2⁶⁰ pieces.
DOUBLED = b"q\x00h\x00\x86" * 60


def zipped(program, values):
    """A zip of PyTorch with any program, with the right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for number, content in enumerate(values):
            archive.writestr(f"archive/data/{number}", content)
    return file.getvalue()


@seeded
@given(EDITS)
def test_a_zip_of_pytorch_with_damaged_bytes(tmp_path, edits):
    path = tmp_path / "pytorch_model.bin"
    pytorch_writer.write(path, "model", layout(ARRAYS), ARRAYS.items())
    path.write_bytes(edited(path.read_bytes(), edits))
    value_or_refusal(path, lambda: read_all(pytorch_files.open_tensors(tmp_path)))


@settings(seeded, max_examples=300)
@given(EDITS)
def test_a_program_with_damaged_bytes(tmp_path, edits):
    """Whose checksum is right, so that it is interpreted."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(3, 2), "b": {"c": [1, None, 2.5]}}, path)
    with zipfile.ZipFile(path) as archive:
        names = {name.split("/", 1)[1]: name for name in archive.namelist()}
        program = archive.read(names["data.pkl"])
        values = archive.read(names["data/0"])
    path.write_bytes(zipped(edited(program, edits), [values]))
    value_or_refusal(path, lambda: read_all(pytorch_files.open_tensors(tmp_path)))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02(" * 10**5,
        b"\x80\x02]" + b"(]" * 10**5 + b"e.",
        b"\x80\x02r\xff\xff\xff\xff.",  # A memo of four thousand million places.
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # A text of exabytes.
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x02N\x86" + b"\x86" * 60 + b"}s.",
        b"\x80\x02}(N" + DOUBLED + b"Nu.",  # The hash of 2⁶⁰ values.
        b"\x80\x02c__main__\n" + b"x" * 9 + b"\n.",
        # Lists in lists, whose text would be as long: as a name, a key, a layout.
        b"\x80\x04]" + DOUBLED + b"h\x00\x93.",
        b"\x80\x02X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        + b"]"
        + DOUBLED
        + b"X\x03\x00\x00\x00cpuK\x01tQ.",
        b"\x80\x02ctorch.serialization\n_get_layout\n]" + DOUBLED + b"\x85R.",
        b"\x80\x02X\x01\x00\x00\x00xQ.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch\nfloat32\n.",
    ],
)
def test_programs_that_ask_for_too_much(tmp_path, program):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zipped(program, []))
    assert not value_or_refusal(path, lambda: pytorch_files.open_tensors(tmp_path))


@seeded
@given(EDITS, st.sampled_from(["config.json", "tokenizer.json", "x.json"]))
def test_json_with_damaged_bytes(tmp_path, edits, name):
    path = tmp_path / name
    path.write_bytes(edited(b'{"a": [1, 2.5, {"b": null}], "c": "\xc3\xa9"}', edits))
    value_or_refusal(path, lambda: read_json(path))


@settings(seeded, max_examples=200)
@given(st.sampled_from(["encoder", "language_model"]), st.data())
def test_a_config_with_any_other_values(kind, data):
    """Whatever is wrong with it, the message says which attribute."""
    config = read_json(EMBEDDED / kind / "config.json")
    names = st.one_of(st.sampled_from(sorted(config)), st.text(max_size=5))
    config |= data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=3))
    read = {"encoder": MertConfig, "language_model": LlamaConfig}[kind].from_dict
    value_or_refusal("config.json", lambda: hash(read(config)))


@settings(seeded, max_examples=200)
@given(st.data())
def test_the_params_of_a_meta_folder_with_any_other_values(tmp_path, data):
    folder = tmp_path / "7B"
    if not folder.exists():
        write_meta(folder, meta_tensors(hub_model(LLAMA_3)), LLAMA_3, shards=2)
    names = st.one_of(st.sampled_from(sorted(LLAMA_3)), st.text(max_size=5))
    params = LLAMA_3 | data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=3))
    (folder / "params.json").write_text(json.dumps(params))
    value_or_refusal(
        folder, lambda: read_all(sources.find(folder, "language_model").tensors())
    )


@settings(seeded, max_examples=200)
@given(st.data())
def test_the_settings_of_a_lora_with_any_other_values(tmp_path, data):
    base, lora = tmp_path / "base", tmp_path / "lora"
    if not lora.exists():
        language_model(base, CONFIG, torch.float32)
        write_lora(lora, factors(), base_model_name_or_path=str(base))
    names = ["base_model_name_or_path", "use_rslora", "rank_pattern", "alpha_pattern"]
    names = st.sampled_from([*names, *SETTINGS, "init_lora_weights", "revision"])
    changes = data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=3))
    said = {"base_model_name_or_path": str(base)} | SETTINGS | changes
    (lora / "adapter_config.json").write_text(json.dumps(said))
    value_or_refusal(
        lora, lambda: read_all(sources.find(lora, "language_model").tensors())
    )


@seeded
@given(EDITS)
def test_a_lora_with_damaged_bytes(tmp_path, edits):
    base, lora = tmp_path / "base", tmp_path / "lora"
    if not base.exists():
        language_model(base, CONFIG, torch.float32)
    write_lora(lora, factors(), base_model_name_or_path=str(base))
    path = lora / "adapter_model.safetensors"
    path.write_bytes(edited(path.read_bytes(), edits))
    value_or_refusal(
        lora, lambda: read_all(sources.find(lora, "language_model").tensors())
    )


@settings(seeded, max_examples=25)
@given(NUMBERS, st.sampled_from(["hidden_size", "head_dim", "intermediate_size"]))
def test_a_language_model_of_another_size(tmp_path, number, name):
    """The sizes are possible, but the tensors have others."""
    folder = EMBEDDED / "language_model"
    config = read_json(folder / "config.json") | {name: number}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    if not (tmp_path / "model.safetensors").exists():
        (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    assert not value_or_refusal(
        tmp_path,
        lambda: weights.load_language_model(
            tmp_path, dtype="float32", quantization="", mesh=None
        ),
    )


@seeded
@given(
    st.sampled_from(
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    ),
    st.data(),
)
def test_a_tokenizer_with_other_values(tmp_path, name, data):
    for path in (EMBEDDED / "language_model").glob("*token*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / name
    content = read_json(path) if path.exists() else {"bos_token": "<s>"}
    for key in data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1)):
        content[key] = data.draw(VALUES)
    path.write_text(json.dumps(content))
    value_or_refusal(tmp_path, lambda: tokenizer.load(tmp_path).encode("a b"))
