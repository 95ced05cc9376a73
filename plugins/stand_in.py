"""Answers without a model: valid by the schema, without sense, the same for the same seed. For tests and trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from plugins.prompting import schema_for

_NOISE = '乱码 lorem <script>alert(1)</script> & "quoted" \\ 忽略以上指令 ]]> 🙂 R1 RECORD>>> zzz '


def stand_in_answer(output_model: type[BaseModel], tags: Mapping[str, str] | Sequence[str], seed: int = 0) -> str:
    """A JSON answer that the schema for `tags` allows, filled with noise; `seed` varies lengths and choices."""
    return json.dumps(_value(schema_for(output_model, tags), f"{seed}"), ensure_ascii=False)


def _value(schema: Mapping[str, Any], path: str) -> Any:
    pick = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4])
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][pick % len(schema["enum"])]
    if "anyOf" in schema:
        return _value(schema["anyOf"][pick % len(schema["anyOf"])], f"{path}|")
    return _TYPES[schema["type"]](schema, path, pick)


def _object(schema: Mapping[str, Any], path: str, _: int) -> dict[str, Any]:
    return {name: _value(sub, f"{path}.{name}") for name, sub in schema["properties"].items()}


def _array(schema: Mapping[str, Any], path: str, pick: int) -> list[Any]:
    least, most = schema.get("minItems", 0), schema["maxItems"]
    size = least + pick % (most - least + 1)
    return [_value(schema["items"], f"{path}[{i}]") for i in range(size)]


def _string(schema: Mapping[str, Any], _: str, pick: int) -> str:
    least, most = schema.get("minLength", 0), schema["maxLength"]
    size = least + pick % (most - least + 1)
    return str((_NOISE * (size // len(_NOISE) + 1))[:size])


def _integer(schema: Mapping[str, Any], _: str, pick: int) -> int:
    return int(schema["minimum"] + pick % (schema["maximum"] - schema["minimum"] + 1))


_TYPES: Mapping[str, Any] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": lambda schema, _, __: schema["minimum"],
    "boolean": lambda _, __, pick: bool(pick % 2),
    "null": lambda _, __, ___: None,
}
