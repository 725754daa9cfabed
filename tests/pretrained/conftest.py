"""A small tokenizer of each kind, trained once for all tests."""

import shutil

import pytest
import transformers
from helpers.tokenizer_files import LEARNT, rewrite, vocabulary
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from transformers.convert_slow_tokenizer import generate_merges


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A tokenizer.model as LLaMA's: spaces alone are the last to be merged."""
    path = tmp_path_factory.mktemp("llama")
    SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNT * 20),
        model_prefix=str(path / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    (path / "tokenizer.vocab").unlink()
    model = ModelProto.FromString((path / "tokenizer.model").read_bytes())
    for piece in model.pieces:
        if set(piece.piece) == {"▁"}:
            piece.score = -1e9
    (path / "tokenizer.model").write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def original(trained):
    return SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))


@pytest.fixture(scope="session")
def converted(trained, original, tmp_path_factory):
    """The folder that transformers makes of it, with merges as released files have."""
    path = tmp_path_factory.mktemp("converted")
    transformers.LlamaTokenizer.from_pretrained(trained).save_pretrained(path)

    def change(said):
        scores = {piece: original.get_score(t) for piece, t in vocabulary(said).items()}
        said["model"]["merges"] = generate_merges(vocabulary(said), scores)

    rewrite(path / "tokenizer.json", change)
    return path


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"
