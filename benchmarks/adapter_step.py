"""An update of the adapter against the same in PyTorch, in turn, in separate processes.

    python benchmarks/adapter_step.py --captions=musiccaps-public.csv --tokenizer=LLAMA
    python benchmarks/adapter_step.py --stage=1 --batch_size=8 --accumulate=1

A frozen LLaMA of random weights (116M parameters: 4 layers of 1024, 32,000 tokens), a
linear adapter that learns by AdamW, captions as long as they really are, and the batch
of the original: for MusicCaps in its second stage, 2 examples at once and 8 such
batches an update. Without `--captions` they are the embedded corpus's.

PyTorch's side (`transformers.LlamaForCausalLM`) does as the original: each batch padded
to its longest example, the scores of all tokens, gradient to the adapter alone. Ours is
`musilingo_jax.training.train_step`, all examples of an update in `--rows` rows; the
same examples on both sides, and the same losses. Printed are the median times per
useful token (audio and text, no padding), by the clock and of the processor, and the
rounds' ratios to PyTorch's (in `in_turn.py`). Making batches is no part of it. Needs
the `test` extra.
"""

import json
import statistics
import tempfile
from pathlib import Path

import captions
import in_turn
import llama_shape
import numpy as np
import one_stage
from absl import app, flags

llama_shape.define(width=1024, depth=4, heads=8, mlp=2752)
CAPTIONS = flags.DEFINE_string("captions", None, "a musiccaps-public.csv")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "a folder that holds one")
STAGE = flags.DEFINE_integer("stage", 2, "whose settings of text, 1 or 2")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 2, "examples at once in PyTorch")
ACCUMULATE = flags.DEFINE_integer("accumulate", 8, "such batches in an update")
ROWS = flags.DEFINE_integer("rows", 8, "rows that we pack an update into")
OUR_ACCUMULATE = flags.DEFINE_integer("our_accumulate", 1, "our batches in an update")
UPDATES = flags.DEFINE_integer("updates", 2, "different updates of a pass")

# Passes over the updates that are timed, in each process.
REPEATS = 3
THEIRS = ("torch float32", "torch bfloat16")
OURS = ("our float32", "our bfloat16")


def examples_per_update() -> int:
    return BATCH_SIZE.value * ACCUMULATE.value


def our_batches():
    """Batches of the captions, one row's worth of memory for all."""
    from musilingo_jax.runtime.sharding import make_mesh
    from musilingo_jax.training.batches import Batches

    return Batches(
        captions.examples(CAPTIONS.value, TOKENIZER.value, STAGE.value),
        {},
        batch_size=examples_per_update(),
        rows=ROWS.value,
        seed=0,
        mesh=make_mesh(1, 1, 1),
    )


def first_adapter() -> np.ndarray:
    """The kernel of the adapter that both begin with; its bias is zero."""
    shape = (captions.WIDTH, flags.FLAGS.width)
    return np.random.default_rng(1).normal(0, 0.02, shape).astype(np.float32)


def update_torch(folder: str, dtype: str):
    """A function that makes an update in PyTorch, by its number, and tells the loss."""
    import torch
    import transformers

    from musilingo_jax.answering import prompts

    kind = getattr(torch, dtype)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=kind).eval()
    model.requires_grad_(False)
    adapter = torch.nn.Linear(captions.WIDTH, flags.FLAGS.width)
    with torch.no_grad():
        adapter.weight.copy_(torch.from_numpy(first_adapter().T.copy()))
        adapter.bias.zero_()
    groups = [
        {"params": [adapter.weight], "weight_decay": one_stage.WEIGHT_DECAY},
        {"params": [adapter.bias], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=one_stage.LEARNING_RATE)
    cache, tokenizer = captions.noise(), captions.load_tokenizer(TOKENIZER.value)
    records = {r.clip: r for r in captions.load(CAPTIONS.value, STAGE.value)}
    prompt, batches = captions.PROMPTS[STAGE.value], our_batches()

    def collate(clips):
        rows = [
            prompts.encode(
                tokenizer,
                prompt,
                records[clip].question,
                records[clip].answer,
                captions.WINDOWS,
            )
            for clip in clips
        ]
        shape = len(rows), max(len(row.tokens) for row in rows)
        tokens = np.zeros(shape, np.int64)
        labels, mask = np.full(shape, -100, np.int64), np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            size = len(row.tokens)
            tokens[i, :size], mask[i, :size] = row.tokens, 1
            labels[i, :size] = np.where(row.target_mask, row.tokens, -100)
        # The text before the audio is the same for all, so it stands in one place.
        start = rows[0].audio_slot.index(0)
        features = np.stack([cache.features(clip) for clip in clips])
        return start, *map(torch.from_numpy, (features, tokens, mask, labels))

    updates = []
    for step in range(UPDATES.value):
        clips, size = batches.clips(step), BATCH_SIZE.value
        parts = [clips[i : i + size] for i in range(0, len(clips), size)]
        updates.append([collate(part) for part in parts])
    embed = model.get_input_embeddings()

    def update(number: int) -> float:
        parts = updates[number]
        count = sum(int((labels != -100).sum()) for *_, labels in parts)
        total = 0.0
        for start, features, tokens, mask, labels in parts:
            text, audio = embed(tokens), adapter(features).to(kind)
            end = start + audio.shape[1]
            both = torch.cat([text[:, :start], audio, text[:, end:]], dim=1)
            loss = model(inputs_embeds=both, attention_mask=mask, labels=labels).loss
            # Weighted as ours, so that both follow the same gradient.
            loss = loss * (int((labels != -100).sum()) / count)
            loss.backward()
            total += loss.item()
        optimiser.step()
        optimiser.zero_grad()
        return total

    return update


def update_ours(folder: str, dtype: str):
    """A function that makes one of our updates, by its number, and tells the loss."""
    import jax

    from musilingo_jax.pretrained import weights
    from musilingo_jax.recipes.start import linear_adapter
    from musilingo_jax.runtime.sharding import make_mesh, shardings
    from musilingo_jax.training.train_step import TrainState, make_update

    mesh, batches = make_mesh(1, 1, 1), our_batches()
    llama = weights.load_language_model(folder, dtype=dtype, quantization="", mesh=mesh)
    adapter = linear_adapter(first_adapter(), np.zeros(flags.FLAGS.width, np.float32))
    stage = one_stage.stage_of(
        captions.PROMPTS[STAGE.value],
        batch_size=examples_per_update() // OUR_ACCUMULATE.value,
        rows=ROWS.value // OUR_ACCUMULATE.value,
        accumulate=OUR_ACCUMULATE.value,
        max_tokens=captions.MAX_TOKENS,
        max_windows=captions.WINDOWS,
        remat=False,
    )
    optimiser = stage.optimiser()
    state = TrainState(adapter=adapter, optimiser=optimiser.init(adapter))
    state = jax.device_put(state, shardings(state, mesh))
    step = make_update(stage, optimiser, shardings(state, mesh))
    made = [batches.batch(number) for number in range(UPDATES.value)]

    def update(number: int) -> float:
        nonlocal state
        state, report = step(state, llama, made[number])
        return float(report.loss)

    return update


def main(argv: list[str]) -> None:
    del argv
    updates = range(UPDATES.value)
    if in_turn.WORKER.value:
        whose, dtype = in_turn.WORKER.value.split()
        make = update_torch if whose == "torch" else update_ours
        update = make(in_turn.FOLDER.value, dtype)
        losses = [update(number) for number in updates]
        times = in_turn.measure(
            lambda: [update(number) for number in updates], warm_up=0, repeats=REPEATS
        )
        print(json.dumps((times, statistics.mean(losses))))
        return
    with tempfile.TemporaryDirectory() as folder:
        llama_shape.write_model(Path(folder))
        told = in_turn.take_turns((*THEIRS, *OURS), folder)
    batches = our_batches()
    tokens = sum(batches.tokens(step) for step in updates)
    padding = statistics.mean(batches.padding(step) for step in updates)
    print(
        f"{examples_per_update()} examples an update, {tokens / len(updates):.0f} "
        f"tokens, {100 * padding:.1f} % of our places empty"
    )
    found = {
        side: [in_turn.Times(*(s / tokens for s in times)) for times, _ in rounds]
        for side, rounds in told.items()
    }
    in_turn.compare(
        found, THEIRS, "µs a token", lambda side: f"  loss {told[side][0][1]:.4f}"
    )


if __name__ == "__main__":
    app.run(main)
