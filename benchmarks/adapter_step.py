"""An update of the adapter, compared with the same update in PyTorch.

    python benchmarks/adapter_step.py --captions=musiccaps-public.csv --tokenizer=LLAMA
    python benchmarks/adapter_step.py --stage=1 --batch_size=8 --accumulate=1

A frozen LLaMA with random weights (116M parameters: 4 layers of 1024, 32,000 tokens), a
linear adapter trained by AdamW, captions of real lengths, and the batch of the
original: for MusicCaps in its second stage, batches of 2 examples, 8 of them to an
update. Without `--captions`, those of the embedded corpus are used.

The PyTorch side (`transformers.LlamaForCausalLM`) works like the original: it pads each
batch to its longest example, computes the scores of all tokens, and differentiates with
respect to the adapter alone. Our side is `musilingo_jax.training.train_step`, with all
examples of an update in `--rows` rows. Both sides see the same examples and have the
same losses. Each runs in its own process, in turn (`in_turn.py`). Printed are median
wall-clock and processor times per useful token (audio and text, without padding), and
their ratios to PyTorch's. The time to make batches does not count. Needs the `test`
extra.
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
TOKENIZER = flags.DEFINE_string("tokenizer", None, "a folder with a tokenizer")
STAGE = flags.DEFINE_integer("stage", 2, "the stage whose text settings to use, 1 or 2")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 2, "examples per batch in PyTorch")
ACCUMULATE = flags.DEFINE_integer("accumulate", 8, "batches per update in PyTorch")
ROWS = flags.DEFINE_integer("rows", 8, "rows that we pack an update into")
OUR_ACCUMULATE = flags.DEFINE_integer("our_accumulate", 1, "batches per update of ours")
UPDATES = flags.DEFINE_integer("updates", 2, "different updates in a pass")

# Timed passes over the updates in each process.
REPEATS = 3
THEIRS = ("torch float32", "torch bfloat16")
OURS = ("our float32", "our bfloat16")


def examples_per_update() -> int:
    """Of both sides."""
    return BATCH_SIZE.value * ACCUMULATE.value


def our_batches():
    """Batches of the captions, with the same features for all clips."""
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
    """The initial kernel of the adapter on both sides; the bias is zero."""
    shape = (captions.WIDTH, flags.FLAGS.width)
    return np.random.default_rng(1).normal(0, 0.02, shape).astype(np.float32)


def update_torch(folder: str, dtype: str):
    """A function from an update's number to its loss in PyTorch."""
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
        # The text before the audio is the same for all, and so is the audio's place.
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
            # Weighted like ours, so that both follow the same gradient.
            loss = loss * (int((labels != -100).sum()) / count)
            loss.backward()
            total += loss.item()
        optimiser.step()
        optimiser.zero_grad()
        return total

    return update


def update_ours(folder: str, dtype: str):
    """A function from an update's number to its loss in ours."""
    import jax

    from musilingo_jax.models.parts import Parts
    from musilingo_jax.pretrained import weights
    from musilingo_jax.recipes.start import linear_adapter
    from musilingo_jax.runtime.sharding import make_mesh, shardings
    from musilingo_jax.training.train_step import TrainState, make_update

    mesh, batches = make_mesh(1, 1, 1), our_batches()
    llama = weights.load_language_model(folder, dtype=dtype, quantization="", mesh=mesh)
    bridge = linear_adapter(first_adapter(), np.zeros(flags.FLAGS.width, np.float32))
    adapter = Parts(bridge=bridge)
    stage = one_stage.stage_of(
        captions.PROMPTS[STAGE.value],
        batch_size=examples_per_update() // OUR_ACCUMULATE.value,
        rows=ROWS.value // OUR_ACCUMULATE.value,
        accumulate=OUR_ACCUMULATE.value,
        max_tokens=captions.MAX_TOKENS,
        max_windows=captions.WINDOWS,
        remat="everything",
    )
    optimiser = stage.optimiser()
    state = TrainState(learning=adapter, optimiser=optimiser.init(adapter))
    state = jax.device_put(state, shardings(state, mesh))
    step = make_update(stage, optimiser, shardings(state, mesh))
    made = [batches.batch(number) for number in range(UPDATES.value)]

    def update(number: int) -> float:
        nonlocal state
        state, report = step(state, Parts(llama=llama), made[number])
        return float(report.loss)

    return update


def main(argv: list[str]) -> None:
    """Compares both sides, or measures one in a worker process."""
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
    theirs = in_turn.worth_waiting(THEIRS)
    with tempfile.TemporaryDirectory() as folder:
        llama_shape.write_model(Path(folder))
        printed = in_turn.take_turns((*theirs, *OURS), folder)
    batches = our_batches()
    tokens = sum(batches.tokens(step) for step in updates)
    padding = statistics.mean(batches.padding(step) for step in updates)
    print(
        f"{examples_per_update()} examples per update, {tokens / len(updates):.0f} "
        f"tokens, {100 * padding:.1f} % of our rows padding"
    )
    found = {
        side: [in_turn.Times(*(s / tokens for s in times)) for times, _ in rounds]
        for side, rounds in printed.items()
    }
    in_turn.compare(
        found, theirs, "µs per token", lambda side: f"  loss {printed[side][0][1]:.4f}"
    )


if __name__ == "__main__":
    flags.adopt_module_key_flags(in_turn)
    flags.adopt_module_key_flags(llama_shape)
    app.run(main)
