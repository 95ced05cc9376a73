"""GGUF becomes what vLLM reads: names, header, configuration; and the converted model, where it is set up."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from pipelines.stack import vllm, weights
from pipelines.stack.weights import Fields, Tensor, WeightsError

FIELDS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 8,
    "llama.feed_forward_length": 16,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<|end|>", "<|start|>", "a", "b", "ab"],
    "tokenizer.ggml.token_type": [3, 3, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.chat_template": "{{ messages }}",
}


@pytest.mark.parametrize(
    ("gguf", "safetensors"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.11.attn_q.weight", "model.layers.11.self_attn.q_proj.weight"),
        ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
    ],
)
def test_tensors_get_the_names_that_transformers_gives_them(gguf: str, safetensors: str) -> None:
    assert weights.renamed(gguf) == safetensors


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight", "rope_freqs.weight", "output", "a.b.c.d.e"]
)
def test_a_tensor_that_would_be_lost_stops_the_conversion(name: str) -> None:
    with pytest.raises(WeightsError, match="unknown: only bias-free llama"):
        weights.renamed(name)


def test_the_header_is_as_safetensors_wants_it() -> None:
    raw = weights.header([Tensor("a", (3, 5)), Tensor("b", (7,))])
    (length,) = struct.unpack("<Q", raw[:8])
    assert length == len(raw) - 8
    assert len(raw) % 8 == 0
    assert json.loads(raw[8:]) == {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]},
        "b": {"dtype": "BF16", "shape": [7], "data_offsets": [30, 44]},
    }


def test_the_configuration_says_what_the_file_says() -> None:
    config = weights.config(Fields(FIELDS), tied=True)
    assert (config["vocab_size"], config["num_hidden_layers"], config["num_key_value_heads"]) == (5, 2, 2)
    assert (config["bos_token_id"], config["eos_token_id"], config["tie_word_embeddings"]) == (1, 0, True)


def test_the_tokenizer_keeps_ids_merges_and_control_tokens() -> None:
    tokenizer = weights.tokenizer(Fields(FIELDS))
    assert tokenizer["model"]["vocab"] == {"<|end|>": 0, "<|start|>": 1, "a": 2, "b": 3, "ab": 4}
    assert tokenizer["model"]["merges"] == [["a", "b"]]
    assert [(token["id"], token["content"]) for token in tokenizer["added_tokens"]] == [
        (0, "<|end|>"),
        (1, "<|start|>"),
    ]
    assert weights.tokenizer_config(Fields(FIELDS))["bos_token"] == "<|start|>"


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_a_file_that_lacks_something_is_refused_by_its_name(key: str) -> None:
    lacking = {name: value for name, value in FIELDS.items() if name != key}

    def convert() -> None:
        fields = Fields(lacking)
        weights.config(fields, tied=True)
        weights.tokenizer(fields)
        weights.tokenizer_config(fields)

    with pytest.raises(WeightsError, match=key):
        convert()


def test_another_architecture_is_refused() -> None:
    with pytest.raises(WeightsError, match="'qwen3': only llama"):
        Fields({**FIELDS, "general.architecture": "qwen3"})


def test_the_converted_model_is_whole() -> None:
    if vllm.missing():
        pytest.skip("the model is not set up: make setup")
    config = json.loads((vllm.WEIGHTS / "config.json").read_text("utf-8"))
    file = vllm.WEIGHTS / "model.safetensors"
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    header.pop("__metadata__")
    ends = [tensor["data_offsets"] for tensor in header.values()]
    assert [begin for begin, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert file.stat().st_size == 8 + length + ends[-1][1]
    assert len(header) == 9 * config["num_hidden_layers"] + 2
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert header["model.layers.0.self_attn.k_proj.weight"]["shape"] == [
        config["num_key_value_heads"] * config["head_dim"],
        config["hidden_size"],
    ]
