"""The share of padding in batches, with one example per row and with several.

    python benchmarks/packing.py --captions=musiccaps-public.csv --tokenizer=LLAMA
    python benchmarks/packing.py                         (embedded captions, tokenizer)

For the published batches and text settings of both stages, and `rows` of 1, 1/2, 1/4
and 1/8 of the examples, it prints the share of padding over `--updates` updates, the
number of shapes (programs to compile), and the longest row; also the number of examples
that are tokenised per second.
"""

import time

import captions
from absl import app, flags

from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training.batches import Batches

CAPTIONS = flags.DEFINE_string("captions", None, "a musiccaps-public.csv")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "a folder with a tokenizer")
UPDATES = flags.DEFINE_integer("updates", 200, "updates to average over")

# Examples per update: LP-MusicCaps-MSD's in stage 1, MusicInstruct's in stage 2, each
# on one GPU and on eight.
SIZES = {1: (8, 64), 2: (16, 32, 256)}


def main(argv: list[str]) -> None:
    """Packs both stages' batches in each number of rows."""
    del argv
    mesh = make_mesh(1, 1, 1)
    print(f"tokenizer: {captions.load_tokenizer(TOKENIZER.value).name}")
    for stage, sizes in SIZES.items():
        began = time.perf_counter()
        examples = captions.examples(CAPTIONS.value, TOKENIZER.value, stage)
        rate = len(examples.records) / (time.perf_counter() - began)
        print(f"stage {stage}: tokenised {rate:,.0f} examples per second")
        for size in sizes:
            for part in (1, 2, 4, 8):
                batches = Batches(
                    examples,
                    {},
                    batch_size=size,
                    rows=size // part,
                    seed=0,
                    mesh=mesh,
                )
                steps = range(UPDATES.value)
                tokens = sum(batches.tokens(step) for step in steps)
                shapes = [batches.shape(step) for step in steps]
                places = sum(shape.length for shape in shapes) * (size // part)
                line = f"stage {stage}, {size:3} examples in {size // part:3} rows: "
                line += f"{100 * (1 - tokens / places):5.1f} % padding, "
                line += f"{len(set(shapes))} shapes, "
                line += f"rows of up to {max(shape.length for shape in shapes)}"
                print(line)


if __name__ == "__main__":
    app.run(main)
