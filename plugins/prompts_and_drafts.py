"""What a scenario says: how its model is asked, what its rules found, and what is to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from plugins.case import Text
from plugins.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the record as the model sees it, with the resource that it rests on.

    In the prompt it stands as `R<n> <text>`, and the model cites `R<n>`; the runner turns that back into `source`.
    """

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked. The instruction is the same for every case, so that the prefix cache serves it.

    Attributes:
        instruction: static text, by locale and prompt version only.
        facts: what the record says; the runner numbers, fences and caps it.
        tensors: inputs of a model that reads no words; its output model then has a field for each output tensor.
    """

    instruction: str
    facts: Sequence[Fact]
    tensors: Sequence[Tensor] = ()


class Statement(BaseModel, frozen=True, extra="forbid"):
    """One sentence of a model's answer with the facts that it rests on. Subclass it to bound `text` differently.

    `sources` is restricted to the case's own tags (R1, R2, ...) in the schema that the model server enforces. In an
    output model a Statement stands in a list or is optional, so that one without support can be cut.
    """

    text: str
    sources: tuple[str, ...]


class Severity(StrEnum):
    """How much a rule's finding matters."""

    INFO = "info"
    WARNING = "warning"
    RED_FLAG = "red_flag"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found, without any model.

    Attributes:
        code: stable id of the rule, for example "chest-pain-at-rest".
        severity: RED_FLAG findings are written at once, before the model is asked.
        text: for the clinician.
        sources: "Type/id" of what it rests on.
        citation: the published source of the rule.
    """

    code: str
    severity: Severity
    text: Text
    sources: tuple[str, ...]
    citation: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One FHIR resource to write, complete but for what write-back adds (label, identity, Provenance).

    Attributes:
        name: which draft of the scenario this is, for example "note"; unique in the scenario, stable over versions.
            Other drafts of the same case refer to it as `urn:careloom:draft:<name>`.
        resource: FHIR R4 JSON without id; its type must have an `identifier` element. Where it names an author, it says
            `urn:careloom:device`: write-back puts the Device of the model (or of the rules) in its place.
        sources: "Type/id" that the draft rests on (Provenance.entity).
    """

    name: str
    resource: dict[str, Any]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One further question of a scenario, asked after the first answer.

    Attributes:
        name: key of its answer in `Scenario.drafts_of_steps`; unique in the scenario.
        output_model: pydantic model of its answer, bounded as the first one.
        max_tokens: cap of its answer.
    """

    name: str
    output_model: type[BaseModel]
    max_tokens: int = 400
