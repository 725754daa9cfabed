"""The `config.json` files of released models, as public code shows them.

Where no copy of a file was found, the comment says what it was put together from.
"""

MERT_95M = {
    "_name_or_path": "m-a-p/MERT-v1-95M",
    "activation_dropout": 0.0,
    "apply_spec_augment": True,
    "architectures": ["MERTModel"],
    "attention_dropout": 0.1,
    "attention_relax": -1.0,
    "auto_map": {
        "AutoConfig": "configuration_MERT.MERTConfig",
        "AutoModel": "modeling_MERT.MERTModel",
    },
    "bos_token_id": 1,
    "classifier_proj_size": 256,
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "ctc_loss_reduction": "sum",
    "ctc_zero_infinity": False,
    "deepnorm": False,
    "do_stable_layer_norm": False,
    "eos_token_id": 2,
    "feat_extract_activation": "gelu",
    "feat_extract_dropout": 0.0,
    "feat_extract_norm": "group",
    "feat_proj_dropout": 0.1,
    "feat_proj_layer_norm": True,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "final_dropout": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "layerdrop": 0.05,
    "mask_feature_length": 10,
    "mask_feature_min_masks": 0,
    "mask_feature_prob": 0.0,
    "mask_time_length": 10,
    "mask_time_min_masks": 2,
    "mask_time_prob": 0.05,
    "model_type": "mert_model",
    "num_attention_heads": 12,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_feat_extract_layers": 7,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "sample_rate": 24000,
    "tokenizer_class": "Wav2Vec2CTCTokenizer",
    "torch_dtype": "float32",
    "transformers_version": "4.24.0",
    "use_weighted_layer_sum": False,
    "vocab_size": 32,
}
# No copy found: the other file with this one's numbers, and what HuBERT's files and
# later versions of the library say besides.
MERT_330M = MERT_95M | {
    "_name_or_path": "m-a-p/MERT-v1-330M",
    "conv_pos_batch_norm": False,
    "do_stable_layer_norm": True,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "mask_channel_length": 10,
    "mask_channel_min_space": 1,
    "mask_channel_other": 0.0,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_time_min_space": 1,
    "mask_time_other": 0.0,
    "mask_time_selection": "static",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
}

LLAMA_1_7B = {
    "architectures": ["LLaMAForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_sequence_length": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": -1,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "float16",
    "transformers_version": "4.27.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
# No copy found: LLaMA-1's, as a version of that spring writes it after a merge.
VICUNA_7B_V0 = LLAMA_1_7B | {
    "_name_or_path": "vicuna-7b",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "transformers_version": "4.28.1",
    "vocab_size": 32001,
}
WIDTHS_13B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
}
VICUNA_13B_V0 = VICUNA_7B_V0 | WIDTHS_13B | {"_name_or_path": "vicuna-13b"}
LLAMA_2_7B = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA_2_13B = (
    LLAMA_2_7B
    | WIDTHS_13B
    | {
        "_name_or_path": "meta-llama/Llama-2-13b-chat-hf",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "num_key_value_heads": 40,
        "rope_theta": 10000.0,
        "transformers_version": "4.40.0.dev0",
    }
)
WIDTHS_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
}
# No copy found: the 7B file with this one's numbers.
LLAMA_2_70B = LLAMA_2_7B | WIDTHS_70B
VICUNA_7B_V1_5 = LLAMA_2_7B | {
    "_name_or_path": "vicuna-7b-v1.5",
    "pad_token_id": 0,
    "transformers_version": "4.31.0",
}
VICUNA_7B_V1_5_16K = VICUNA_7B_V1_5 | {
    "_name_or_path": "vicuna-7b-v1.5-16k",
    "max_sequence_length": 16384,
    "rope_scaling": {"factor": 4.0, "type": "linear"},
    "transformers_version": "4.34.0",
}
# No copy found: LLaMA-2's with the base that its code models are known by.
CODE_LLAMA_7B = LLAMA_2_7B | {
    "max_position_embeddings": 16384,
    "rope_theta": 1000000,
    "vocab_size": 32016,
}
LLAMA_3_8B = {
    "_name_or_path": "meta-llama/Meta-Llama-3-8B",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.2",
    "use_cache": True,
    "vocab_size": 128256,
}
LLAMA_3_70B = LLAMA_3_8B | WIDTHS_70B | {"eos_token_id": 128009}
LLAMA_3_1_8B = {
    name: value
    for name, value in LLAMA_3_8B.items()
    if name not in ("_name_or_path", "rope_scaling")
} | {
    "eos_token_id": [128001, 128008, 128009],
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "transformers_version": "4.43.0.dev0",
}
LLAMA_3_2_1B = LLAMA_3_1_8B | {
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rope_scaling": LLAMA_3_1_8B["rope_scaling"] | {"factor": 32.0},
    "tie_word_embeddings": True,
    "transformers_version": "4.45.0.dev0",
}
# As the best-known copy outside of the gate says it, with its own marks.
LLAMA_3_2_1B_COPY = LLAMA_3_2_1B | {
    "eos_token_id": 128009,
    "pad_token_id": 128004,
    "transformers_version": "4.52.0.dev0",
    "unsloth_fixed": True,
}
LLAMA_3_2_3B = LLAMA_3_2_1B | {
    "_attn_implementation_autoset": True,
    "_name_or_path": "meta-llama/Llama-3.2-3B",
    "head_dim": 128,
    "hidden_size": 3072,
    "num_attention_heads": 24,
    "num_hidden_layers": 28,
}
