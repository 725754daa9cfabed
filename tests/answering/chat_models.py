"""Chat templates as five families of models publish them, and tokenizers for them.

Written after the public documentation of each family; the parts on tools are left out.
"""

import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

CHATML = """
{%- for message in messages %}
{%- if loop.first and message.role != 'system' %}
{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN_3 = """
{%- for message in messages %}
{%- if message.role == 'user' or message.role == 'system' %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\n\n</think>\n\n' }}
{%- endif %}
{%- endif %}
"""
LLAMA_3 = """
{{- bos_token }}
{%- if not date_string is defined %}
{%- if strftime_now is defined %}
{%- set date_string = strftime_now('%d %b %Y') %}
{%- else %}
{%- set date_string = '26 Jul 2024' %}
{%- endif %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{{- 'Cutting Knowledge Date: December 2023\n' }}
{{- 'Today Date: ' + date_string + '\n\n' }}
{{- '<|eot_id|>' }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA_2 = """
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{- ' ' + message['content'].strip() + ' ' + eos_token }}
{%- endif %}
{%- endfor %}
"""
MISTRAL = """
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{{- '[INST] ' + message['content'] + '[/INST]' }}
{%- else %}
{%- generation %}
{{- ' ' + message['content'] + eos_token }}
{%- endgeneration %}
{%- endif %}
{%- endfor %}
"""

_TEXTS = (
    "system user assistant You are a helpful assistant.\nWhat is the tempo of this? ",
    "Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024 [INST] [/INST] ",
    "It is slow, 120 beats per minute. <Audio> </Audio> think im_start im_end eot_id",
)

# Name → template, special tokens (the start and the end first), tokens that are added
# and not special, and how spaces are treated.
MODELS = {
    "ChatML": (CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), (), "bytes"),
    "Qwen3": (
        QWEN_3,
        (None, "<|im_end|>", "<|im_start|>", "<|endoftext|>"),
        ("<think>", "</think>"),
        "bytes",
    ),
    "Llama 3": (
        LLAMA_3,
        (
            *("<|begin_of_text|>", "<|eot_id|>"),
            *("<|start_header_id|>", "<|end_header_id|>"),
        ),
        (),
        "bytes",
    ),
    "Llama 2": (LLAMA_2, ("<s>", "</s>", "<unk>"), (), "prepend"),
    "Mistral": (
        MISTRAL,
        ("<s>", "</s>", "<unk>", "[INST]", "[/INST]"),
        (),
        "first",
    ),
}


def write(folder, name):
    """Writes the tokenizer and the template of a model."""
    template, special, added, spaces = MODELS[name]
    if spaces == "bytes":
        pairs = tokenizers.Tokenizer(models.BPE())
        pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pairs.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        pairs = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        alphabet = []
        pairs.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        if spaces == "prepend":
            pairs.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            pairs.pre_tokenizer = pre_tokenizers.Metaspace(
                prepend_scheme="first", split=False
            )
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=alphabet,
        show_progress=False,
        special_tokens=[]
        if spaces == "bytes"
        else [*filter(None, special), *(f"<0x{byte:02X}>" for byte in range(256))],
    )
    pairs.train_from_iterator(_TEXTS, trainer)
    said = json.loads(pairs.to_str())
    # Bytes are pieces of the vocabulary, and not special.
    said["added_tokens"] = [
        entry for entry in said["added_tokens"] if entry["content"] in special
    ]
    pairs = tokenizers.Tokenizer.from_str(json.dumps(said))
    pairs.add_special_tokens([*filter(None, special)])
    pairs.add_tokens([*added])
    pairs.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[0],
        "eos_token": special[1],
        "legacy": spaces != "first",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
