"""Accounts for every attribute of a released `config.json`.

A released file has more attributes than a model needs, and the next one has new ones.
An attribute that would change the arithmetic must not be overlooked, so each is

    used       read into our own config,
    fixed      compared with the one value that we implement, or
    ignored    named here, with the reason why it changes nothing;

anything else is an error that names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from musilingo_jax.runtime.errors import UserError

LARGEST_SIZE = 2**24
"""More than any size of any model: a larger one is a damaged number."""

IGNORED_EVERYWHERE: dict[str, str] = {
    "provenance of the file, and the type that its weights are stored in": """
        architectures _name_or_path name_or_path _commit_hash transformers_version
        auto_map torch_dtype dtype use_bfloat16 torchscript
    """,
    "special tokens, which the tokenizer's own files define": """
        bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id
        tokenizer_class prefix
    """,
    "training in the other library": """
        initializer_range attention_dropout gradient_checkpointing
    """,
    "how the other library runs, and what its calls return": """
        use_cache attn_implementation _attn_implementation _attn_implementation_autoset
        return_dict use_return_dict output_hidden_states output_attentions
        tie_encoder_decoder tf_legacy_loss
    """,
    "its classifiers": """
        id2label label2id num_labels problem_type finetuning_task task_specific_params
    """,
    "its text generation, which old versions wrote into every file": """
        max_length min_length do_sample early_stopping num_beams num_beam_groups
        diversity_penalty temperature top_k top_p typical_p repetition_penalty
        length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
        num_return_sequences forced_bos_token_id forced_eos_token_id
        remove_invalid_values exponential_decay_length_penalty suppress_tokens
        begin_suppress_tokens output_scores return_dict_in_generate
    """,
}
"""Attributes without effect on any model here: reason → names."""


@dataclass(frozen=True)
class AttributeGuard:
    """The attributes that one architecture knows.

    Attributes:
      used: names that are read, separated by spaces.
      fixed: name → the only value that is implemented.
      ignored: reason → names, as in `IGNORED_EVERYWHERE`, which are ignored as well.
      null_is_unset: whether null in a `fixed` attribute stands for "not set".
      file: the name of the file, for messages.
    """

    used: str
    fixed: Mapping[str, Any]
    ignored: Mapping[str, str]
    null_is_unset: bool
    file: str = field(default="config.json")

    def check(self, config_json: Mapping[str, Any]) -> None:
        """Checks that every attribute is accounted for.

        Raises:
          UserError: an attribute is unknown, or has a value that is not implemented.
        """
        lists = self.used, *IGNORED_EVERYWHERE.values(), *self.ignored.values()
        known = {name for names in lists for name in names.split()} | self.fixed.keys()
        unknown = [
            f"{name!r} ({value!r})"
            for name, value in sorted(config_json.items())
            if name not in known
        ]
        if unknown:
            raise UserError(
                f"{self.file}: unknown attribute {', '.join(unknown)}: remove it if it "
                "does not change what the model computes"
            )
        for name, only in self.fixed.items():
            if name not in config_json:
                continue
            value = config_json[name]
            if value != only and not (value is None and self.null_is_unset):
                raise UserError(
                    f"{self.file}: {name} is {value!r}, but only {only!r} is "
                    "implemented"
                )
