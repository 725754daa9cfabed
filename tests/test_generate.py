"""Answers: how tokens are chosen, where they stop, and that rows do not meet."""

import dataclasses
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_answerer as tiny
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from musilingo_jax import decoding, generate, speaker, stops, tokenizer, weights
from musilingo_jax.answers import AnswerFile, Ask
from musilingo_jax.corpora.records import Record
from musilingo_jax.decoding import Greedy, Nucleus, Prompts, decode
from musilingo_jax.errors import UserError
from musilingo_jax.models.musilingo import splice
from musilingo_jax.prompts import encode
from musilingo_jax.sharding import make_mesh
from musilingo_jax.sources import ModelConfig
from musilingo_jax.speaker import GenerateConfig, Speaker, answer

# Threads that wait for each other are slow where cores are shared.
torch.set_num_threads(1)

GREEDY = GenerateConfig(
    max_new_tokens=12, temperature=0.0, top_p=1.0, seed=0, batch_size=4
)
SAMPLED = dataclasses.replace(GREEDY, temperature=1.0, top_p=0.9, seed=7)


def requests(count: int) -> list[tuple[np.ndarray, str]]:
    """Songs of 3 or 4 windows, short questions and long ones."""
    generator = np.random.default_rng(1)
    return [
        (
            generator.normal(size=(3 + i % 2, tiny.MERT.hidden_size)).astype("f"),
            "Why? " * (i * 5 % 7) + "How?",
        )
        for i in range(count)
    ]


def padded(asked) -> tuple[Prompts, list]:
    examples = [
        encode(tiny.tokenizer(), tiny.PROMPT, question, None, len(features))
        for features, question in asked
    ]
    rows = [
        (*request, example) for request, example in zip(asked, examples, strict=True)
    ]
    length = 3 + max(len(example.tokens) for example in examples)
    prompts = speaker._pad(rows, rows=len(rows) + 1, length=length, windows=4, seed=0)
    return prompts, examples


def never(vocab: int) -> np.ndarray:
    """A stop table that never stops."""
    return np.stack([np.zeros(vocab, np.int32), np.ones(vocab, np.int32)])


def test_greedy_equals_transformers(tmp_path):
    llama, adapter = tiny.llama(), tiny.adapter(32)
    weights.save_language_model(llama, tmp_path, dtype=np.float32)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    asked = requests(4)
    prompts, examples = padded(asked)
    vocab = llama.config.vocab
    free = np.asarray(
        decode(
            adapter, llama, prompts, never(vocab), sampling=Greedy(), max_new_tokens=12
        )
    )
    # Let a token that one row really says be the end of the text.
    eos = int(free[1, 5])
    table = never(vocab)
    table[0, eos] = 1
    said = np.asarray(
        decode(adapter, llama, prompts, table, sampling=Greedy(), max_new_tokens=12)
    )
    assert len(np.unique(free[:4])) > 8
    assert (said[4] == decoding.SILENCE).all()
    for row, ((features, _), example) in enumerate(zip(asked, examples, strict=True)):
        text = llama.embed(jnp.asarray([example.tokens]))
        slots = jnp.asarray([example.audio_slot])
        embeddings = np.array(splice(text, adapter(features[None]), slots))
        with torch.no_grad():
            expected = theirs.generate(
                inputs_embeds=torch.from_numpy(embeddings),
                attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.int64),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=eos,
                pad_token_id=0,
            )[0].tolist()
        assert said[row, : len(expected)].tolist() == expected
        assert (said[row, len(expected) :] == decoding.SILENCE).all()


def test_cached_equals_uncached():
    llama, adapter = tiny.llama(), tiny.adapter(32)
    asked = requests(3)
    prompts, examples = padded(asked)
    said = np.asarray(
        decode(
            adapter,
            llama,
            prompts,
            never(llama.config.vocab),
            sampling=Greedy(),
            max_new_tokens=8,
        )
    )
    # One pass over prompt and answer: what is likeliest after each token said?
    time = max(len(example.tokens) for example in examples) + 8
    tokens = np.zeros((3, time), np.int32)
    audio_slot = np.full((3, time), -1, np.int32)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        tokens[row, : length + 8] = [*example.tokens, *said[row]]
        audio_slot[row, :length] = example.audio_slot
    audio = adapter(prompts.features[:3])
    hidden, _ = llama(
        splice(llama.embed(jnp.asarray(tokens)), audio, jnp.asarray(audio_slot)),
        positions=jnp.broadcast_to(jnp.arange(time), (3, time)),
        attend=jnp.broadcast_to(
            jnp.tril(jnp.ones((time, time), bool)), (3, time, time)
        ),
        cache=None,
        remat=False,
    )
    likeliest = np.asarray(jnp.argmax(llama.logits(hidden), axis=-1))
    for row, example in enumerate(examples):
        last = len(example.tokens) - 1
        assert likeliest[row, last : last + 8].tolist() == said[row].tolist()


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_depends_on_its_own_request_only(config):
    model = Speaker(tiny.adapter(32), tiny.llama(), tiny.tokenizer())
    asked = requests(6)
    together = answer(model, tiny.PROMPT, asked, config, mesh=None)
    assert len(set(together)) > 3
    backwards = answer(model, tiny.PROMPT, asked[::-1], config, mesh=None)
    assert backwards[::-1] == together
    in_twos = dataclasses.replace(config, batch_size=2)
    assert answer(model, tiny.PROMPT, asked, in_twos, mesh=None) == together
    for request, text in zip(asked, together, strict=True):
        assert answer(model, tiny.PROMPT, [request], config, mesh=None) == [text]
    assert answer(model, tiny.PROMPT, [], config, mesh=None) == []


def test_the_seed_changes_what_is_sampled():
    model = Speaker(tiny.adapter(32), tiny.llama(), tiny.tokenizer())
    asked = requests(4)
    other = dataclasses.replace(SAMPLED, seed=8)
    first = answer(model, tiny.PROMPT, asked, SAMPLED, mesh=None)
    assert answer(model, tiny.PROMPT, asked, SAMPLED, mesh=None) == first
    assert answer(model, tiny.PROMPT, asked, other, mesh=None) != first


def test_answers_on_a_mesh_equal_those_without():
    model = Speaker(tiny.adapter(32), tiny.llama(), tiny.tokenizer())
    mesh = jax.make_mesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )
    asked = requests(3)
    expected = answer(model, tiny.PROMPT, asked, GREEDY, mesh=None)
    assert answer(model, tiny.PROMPT, asked, GREEDY, mesh=mesh) == expected


def test_nucleus_keeps_the_fewest_tokens_that_reach_top_p():
    logits = jnp.log(jnp.array([0.15, 0.5, 0.05, 0.3]))
    keys = jax.random.split(jax.random.key(0), 4000)

    def shares(sampling):
        drawn = sampling.choose(jnp.broadcast_to(logits, (4000, 4)), keys)
        return np.bincount(drawn, minlength=4) / 4000

    kept = np.array([0.0, 0.5, 0.0, 0.3]) / 0.8
    np.testing.assert_allclose(shares(Nucleus(1.0, 0.7)), kept, atol=0.03)
    np.testing.assert_allclose(
        shares(Nucleus(1.0, 1.0)), [0.15, 0.5, 0.05, 0.3], atol=0.03
    )
    assert shares(Nucleus(1.0, 0.4))[1] == 1.0
    squared = np.array([0.15, 0.5, 0.05, 0.3]) ** 2
    np.testing.assert_allclose(
        shares(Nucleus(0.5, 1.0)), squared / squared.sum(), atol=0.03
    )


@dataclasses.dataclass(frozen=True)
class Counted(Greedy):
    """Greedy, and tells how often it was asked."""

    counts: tuple[list[int], ...] = dataclasses.field(hash=False, compare=False)

    def choose(self, logits, keys):
        jax.debug.callback(lambda: self.counts[0].append(1))
        return super().choose(logits, keys)


def test_the_loop_ends_when_all_rows_have():
    said = tiny.tokenizer().encode("ab###cdefg")
    llama, prompts = parrot_prompts(said)
    counts = []
    sampling = Counted((counts,))
    table = stops.stop_table(tiny.tokenizer(), "###", llama.config.vocab)
    tokens = decode(
        tiny.adapter(llama.config.width),
        llama,
        prompts,
        table,
        sampling=sampling,
        max_new_tokens=40,
    )
    jax.block_until_ready(tokens)
    jax.effects_barrier()
    assert np.asarray(tokens)[0, :4].tolist() == [*said[:3], decoding.SILENCE]
    assert len(counts) == 3


def parrot_prompts(said: list[int]):
    prompts, examples = padded(requests(1))
    return tiny.parrot(said, start=examples[0].tokens[-1]), prompts


@pytest.mark.parametrize(
    "pieces",
    [
        ["a", "###", "b"],
        ["a", "##", "#", "b"],
        ["a", "#", "##", "b"],
        ["a", "!#", "##", "b"],
        ["a", "Ġ#", "##", "b"],
        ["a", "##", "#?", "b"],
        ["a", "!#", "#", "#?", "b"],
        ["a", "</s>", "b"],
    ],
)
def test_stops_on_the_stop_text_in_any_tokenisation(pieces):
    tokenizer = tiny.tokenizer()
    said = [tiny.token(piece) for piece in pieces]
    assert len(set(said)) == len(said)
    start = encode(tokenizer, tiny.PROMPT, "How?", None, 1).tokens[-1]
    llama = tiny.parrot(said, start=start)
    model = Speaker(tiny.adapter(llama.config.width), llama, tokenizer)
    asked = [(np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")]
    expected = "a!" if "!#" in pieces else "a"
    assert answer(model, tiny.PROMPT, asked, GREEDY, mesh=None) == [expected]
    table = stops.stop_table(tokenizer, "###", llama.config.vocab)
    state = 0
    for token in said[:-1]:
        assert state < 3
        state = table[state, token]
    assert state == 3


def test_goes_on_where_the_stop_text_is_not_complete():
    tokenizer = tiny.tokenizer()
    said = [tiny.token(piece) for piece in ["#", "a", "##", "b", "!#", "#?", "c"]]
    start = encode(tokenizer, tiny.PROMPT, "How?", None, 1).tokens[-1]
    llama = tiny.parrot([*said, tokenizer.end], start=start)
    model = Speaker(tiny.adapter(llama.config.width), llama, tokenizer)
    asked = [(np.zeros((1, tiny.MERT.hidden_size), np.float32), "How?")]
    assert answer(model, tiny.PROMPT, asked, GREEDY, mesh=None) == ["#a##b!##?c"]


@pytest.mark.parametrize("stop", ["###", "\n"])
def test_stop_table_agrees_with_the_decoded_text(stop):
    tokenizer = tiny.tokenizer()
    table = stops.stop_table(tokenizer, stop, tokenizer.size + 1)
    likely = [
        token
        for token in range(tokenizer.size)
        if set(tokenizer.decode([token])) & set("#!?\n ")
    ]
    draw = random.Random(0)
    for _ in range(300):
        state, said = 0, []
        for token in draw.choices(likely, k=6):
            said.append(token)
            state = table[state, token]
            assert (state == len(stop)) == (stop in tokenizer.decode(said)), said


def test_stop_table_with_sentencepiece_spaces_and_bytes(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", "<0x23>", "a", "▁", "#", "##", "▁#", "▁##"]
    bpe = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[("#", "#"), ("▁", "#"), ("▁", "##")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bpe.save(str(tmp_path / "tokenizer.json"))
    table = stops.stop_table(tokenizer.load(tmp_path), "###", len(pieces))

    def spelled(*tokens):
        state = 0
        for piece in tokens:
            state = table[state, pieces.index(piece)]
        return state

    assert spelled("▁#", "##") == 3
    assert spelled("##", "<0x23>") == 3
    assert spelled("#", "▁##") == 2
    assert spelled("##", "▁#") == 1
    assert spelled("#", "a") == 0
    assert spelled("a", "</s>") == 3


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        (" It is jazz.### ###Human: And", "It is jazz."),
        ("Assistant: It is jazz.", "It is jazz."),
        ("It is jazz", "It is jazz"),
        ("###", ""),
    ],
)
def test_tidy(text, answered):
    assert stops.tidy(text, "###") == answered


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
        {"batch_size": 0},
    ],
)
def test_impossible_decoding_is_refused(changes):
    with pytest.raises(UserError, match=f"generate.{next(iter(changes))}"):
        dataclasses.replace(GREEDY, **changes)


def test_unknown_or_missing_keys_of_decoding_are_refused(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    assert GenerateConfig.from_config(config).max_new_tokens == 6
    config.generate = {"max_new_tokens": 6, "beams": 4}
    with pytest.raises(UserError, match=r"config\.generate.*beams"):
        GenerateConfig.from_config(config)


def test_an_adapter_for_another_language_model_is_refused(tmp_path):
    tiny.save_model(tmp_path, tiny.llama())
    weights.save_adapter(
        tiny.adapter(24), tmp_path / "other", dtype=np.float32, window_frames=10
    )
    with pytest.raises(UserError, match=r"width 24.*reads 32"):
        Speaker.load(
            str(tmp_path / "language_model"),
            str(tmp_path / "other"),
            dtype="float32",
            mesh=None,
        )


def test_adapter_of_prefers_the_given_then_the_run_then_the_config(tmp_path):
    config = tiny.config(tmp_path, corpus="")
    with pytest.raises(UserError, match="no trained adapter.*train"):
        generate.adapter_of(config, None)
    config.model.adapter = "somewhere"
    assert generate.adapter_of(config, None) == "somewhere"
    # A run that was interrupted has none, and its start is no substitute.
    (tmp_path / "run/stage2/checkpoints/40").mkdir(parents=True)
    with pytest.raises(UserError, match="no trained adapter"):
        generate.adapter_of(config, None)
    run = tmp_path / "run/adapter"
    weights.save_adapter(tiny.adapter(32), run, dtype=np.float32, window_frames=10)
    assert generate.adapter_of(config, None) == str(run)
    assert generate.adapter_of(config, "mine") == "mine"


def test_an_adapter_for_another_encoder_is_refused(tmp_path):
    """Before anything is multiplied."""
    folder, frames = tmp_path / "other", 108
    model = ModelConfig("musilingo-tiny", "musilingo-tiny", str(folder), "float32")
    weights.save_adapter(
        tiny.adapter(32), folder, dtype=np.float32, window_frames=frames
    )
    with pytest.raises(UserError, match="encoder musilingo-tiny makes 192"):
        generate.load_speaker(model, frames, make_mesh(1, 1, 1))


def record(number: int) -> Record:
    return Record(
        audio=None,
        clip=f"{number}.wav",
        question="How?",
        answer=f"So {number}.",
        split="test",
        attribute=None,
        value=None,
    )


def test_answer_file_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "deep/answers.jsonl"
    asks = [Ask(record(i), heard=f"{i}.wav") for i in range(3)]
    file = AnswerFile(path, "model", replace=False)
    file.add(asks[2], "zwei ♪")
    file.add(asks[0], "null")
    with path.open("a") as torn:
        torn.write('{"clip": "1.wav", "heard"')
    again = AnswerFile(path, "model", replace=False)
    assert [again.answer(ask) for ask in asks] == ["null", None, "zwei ♪"]
    again.add(asks[1], "eins")
    again.finish(asks)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["null", "eins", "zwei ♪"]
    assert rows[0]["reference"] == "So 0." and rows[0]["question"] == "How?"
    assert rows[0]["clip"] == "0.wav"


def test_answer_file_never_mixes_two_models(tmp_path):
    path = tmp_path / "answers.jsonl"
    ask = Ask(record(0), heard="0.wav")
    AnswerFile(path, "model", replace=False).add(ask, "null")
    with pytest.raises(UserError, match="another adapter, configuration"):
        AnswerFile(path, "other", replace=False)
    assert AnswerFile(path, "other", replace=True).answer(ask) is None
    assert path.read_text() == ""


def test_answer_file_refuses_other_files(tmp_path):
    path = tmp_path / "songs.jsonl"
    path.write_text('{"audio": "a.wav"}\n')
    with pytest.raises(UserError, match=r"songs.jsonl:1 is not an answer"):
        AnswerFile(path, "model", replace=True)
