"""Small models with random weights, made by the transformers library."""

import torch
import transformers


def tiny_llama(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(**(sizes | heads | changes))
    return transformers.LlamaForCausalLM(config).eval()
