"""Decoding, compared with PyTorch's.

    python benchmarks/decoding.py --rounds=5

A LLaMA with random weights answers prompts of `--prompt` random tokens, greedily: with
`generate` of `transformers`, one prompt at a time; with ours, one at a time, and
`--rows` at a time by continuous batching, where one token in `--tokens` ends an answer,
so that answers differ in length. Ours does it in float32, bfloat16 and int8. Each side
runs in its own process, in turn (`in_turn.py`). Printed are median wall-clock and
processor times per token, and their ratios to PyTorch's float32. On a busy machine,
where PyTorch's threads would wait for each other, run it on one core (`taskset -c 0
python …`). Needs the `test` extra. On an accelerator, `card.py --parts=decode` measures
a 7B.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import in_turn
import llama_shape
import numpy as np
from absl import app, flags

llama_shape.define(width=1024, depth=4, heads=16, mlp=2752)
PROMPT = flags.DEFINE_integer("prompt", 64, "tokens of a prompt")
TOKENS = flags.DEFINE_integer("tokens", 64, "tokens of the longest answer")
ROWS = flags.DEFINE_integer("rows", 16, "answers decoded at the same time")

REPEATS = 3
# Prompts per row in continuous batching.
REFILLS = 4
THEIRS = ("torch float32 1", "torch bfloat16 1")
MINE = tuple(
    f"our {dtype} {rows}"
    for rows in ("1", "rows")
    for dtype in ("float32", "bfloat16", "int8")
)


def prompts(count: int) -> np.ndarray:
    """Random tokens [count, prompt]."""
    shape = (count, PROMPT.value)
    return np.random.default_rng(0).integers(3, flags.FLAGS.vocab, shape)


def answers_of_torch(folder: str, dtype: str):
    """A function that answers one prompt with PyTorch and counts the tokens."""
    import torch
    import transformers

    kind = getattr(torch, dtype)
    loaded = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=kind)
    model: Any = loaded.eval()
    asked = torch.from_numpy(prompts(1))

    def run() -> int:
        with torch.inference_mode():
            tokens = model.generate(
                asked,
                attention_mask=torch.ones_like(asked),
                do_sample=False,
                min_new_tokens=TOKENS.value,
                max_new_tokens=TOKENS.value,
                pad_token_id=0,
            )
        return tokens.shape[1] - PROMPT.value

    return run


def load_ours(folder: str, dtype: str):
    """Our model, from a folder, for decoding."""
    from musilingo_jax.models.llama import unstacked
    from musilingo_jax.pretrained import weights

    quantization = "int8" if dtype == "int8" else ""
    dtype = "bfloat16" if quantization else dtype
    return unstacked(
        weights.load_language_model(
            folder, dtype=dtype, quantization=quantization, mesh=None
        )
    )


def answers_of_ours(llama, rows: int):
    """A function that answers prompts with ours and counts the tokens."""
    from flax import nnx

    from musilingo_jax.answering.continuous_batching import ContinuousBatch
    from musilingo_jax.answering.decoding import TokenRule
    from musilingo_jax.answering.padded_prompts import PromptTokens
    from musilingo_jax.answering.prompt_queue import QueuedPrompt
    from musilingo_jax.answering.prompt_reader import PromptReader
    from musilingo_jax.answering.sampling import Choice, Greedy
    from musilingo_jax.answering.stop_texts import Stops
    from musilingo_jax.models.bridges.linear import LinearBridge

    # One column of the table for tokens that continue, and one for those that end.
    ends = np.zeros((1, flags.FLAGS.vocab), np.int32)
    if rows > 1:
        shuffled = np.random.default_rng(1).permutation(flags.FLAGS.vocab)
        ends[0, shuffled[:: TOKENS.value]] = 1
    stops = Stops(np.array([[0, 1], [1, 1]], np.int32), ends)
    adapter = LinearBridge(8, flags.FLAGS.width, rngs=nnx.Rngs(0))
    silent = np.zeros((0, 8), np.float32)
    waiting = [
        QueuedPrompt(
            index, PromptTokens(silent, tuple(prompt), (-1,) * len(prompt)), index
        )
        for index, prompt in enumerate(prompts(rows * REFILLS if rows > 1 else 1))
    ]

    def run() -> int:
        job = ContinuousBatch(
            PromptReader(adapter, llama, mesh=None),
            TokenRule(Choice((), Greedy()), stops),
            waiting,
            rows=rows,
            max_new_tokens=TOKENS.value,
        )
        return sum(len(tokens) for _, tokens in job.answers())

    return run


def measure(run) -> tuple[in_turn.Times, int]:
    """The times of a run, and the number of its tokens."""
    tokens = run()
    return in_turn.measure(run, warm_up=0, repeats=REPEATS), tokens


def main(argv: list[str]) -> None:
    """Compares both, or measures one side in a worker process."""
    del argv
    if in_turn.WORKER.value:
        whose, dtype, rows = in_turn.WORKER.value.split()
        if whose == "torch":
            run = answers_of_torch(in_turn.FOLDER.value, dtype)
        else:
            count = ROWS.value if rows == "rows" else 1
            llama = load_ours(in_turn.FOLDER.value, dtype)
            run = answers_of_ours(llama, count)
        times, tokens = measure(run)
        print(json.dumps([seconds / tokens for seconds in times]))
        return
    with tempfile.TemporaryDirectory() as folder:
        llama_shape.write_model(Path(folder))
        printed = in_turn.take_turns((*in_turn.worth_waiting(THEIRS), *MINE), folder)
    found = {side: [in_turn.Times(*each) for each in printed[side]] for side in printed}
    in_turn.compare(found, THEIRS[:1], "ms per token")


if __name__ == "__main__":
    flags.adopt_module_key_flags(in_turn)
    flags.adopt_module_key_flags(llama_shape)
    app.run(main)
