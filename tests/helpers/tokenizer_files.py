"""Texts, and tokenizer files that are made of them."""

import json

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

LEARNT = (
    "###Human: <Audio></Audio> What is it?  How  fast? ###Assistant: ",
    "It is a calm piano piece, slow and quiet, 120 beats per minute.\n###",
    "</s><s> <unk></s> </s>\n",
)


TEXTS = (
    "###Human: <Audio>",
    "</Audio> How fast is it? ###Assistant: ",
    "It is slow.###",
    "A calm piece.\n",
    "a",
    " ",
    "   ",
    " a",
    "  two before, two  between, two after  ",
    "\n",
    "\n\n a\tb\r\n",
    "♪ 🎵 Café naïve",
    "日本の音楽 und Straße",
    "▁a▁▁b",
    "</s>",
    "Is it </s> or <s>, <unk> or <0x0A>?",
    " ###",
    "12,345.6",
    "a\0b",
)


def vocabulary(said):
    return said["model"]["vocab"]


def write(path, said):
    path.write_text(json.dumps(said))


def rewrite(path, change):
    said = json.loads(path.read_text())
    change(said)
    write(path, said)


def byte_level(folder):
    """A tokenizer.json as LLaMA 3's: special tokens beyond the vocabulary proper."""
    pairs = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(LEARNT, trainer)
    pairs.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    pairs.add_tokens(["<music>"])
    pairs.enable_truncation(4)
    pairs.enable_padding(length=9)
    pairs.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    write(folder / "tokenizer_config.json", config)
    return pairs
