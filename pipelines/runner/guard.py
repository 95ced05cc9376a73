"""What a model said, held against what it was shown: cut what has no support, refuse what is no answer.

Three things are checked in code, whatever the scenario and the guards: the answer is whole and fits its schema; every
statement cites facts that were shown; none names a resource that it does not cite. The rest is the guards'
(`plugins/guards`, `pipelines/runner/verdicts.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from fhir_adapters.resource_types import versions_of
from pipelines.errors import ErrorClass, StepFailed
from plugins.errors import AnswerInvalid
from plugins.model_backend import ChatAnswer
from plugins.prompting import parse_answer
from plugins.scenario import Fact, Statement

Answer = TypeVar("Answer", bound=BaseModel)

_RESOURCE = re.compile(r"(?<![A-Za-z0-9])([A-Z][A-Za-z]{2,})/([A-Za-z0-9\-.]{1,64})")
#: Unicode categories that no text of a record needs: controls, format characters, surrogates, private use, unassigned.
_NOT_TEXT = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


@dataclass(frozen=True, slots=True)
class Guarded(Generic[Answer]):
    """An answer that has passed.

    Attributes:
        answer: what is left; its statements cite "Type/id".
        cut: statements taken out.
    """

    answer: Answer
    cut: int


def guarded(
    output_model: type[Answer], answer: ChatAnswer, *, tags: Mapping[str, str], facts: Sequence[Fact]
) -> Guarded[Answer]:
    """Hold an answer against its schema and its facts.

    Args:
        output_model: what was asked for.
        answer: what came.
        tags: "R<n>" -> "Type/id" of the facts that the model was shown.
        facts: the facts that the case gave.

    Raises:
        StepFailed: MODEL_INVALID_OUTPUT: cut off, not JSON, or not what the schema allows.
    """
    if answer.finish_reason != "stop":
        reason = answer.finish_reason if answer.finish_reason in ("length", "content_filter") else "another reason"
        raise _invalid(f"the answer did not come to its end (finish_reason: {reason})")
    try:
        parsed, unsupported = parse_answer(output_model, answer.text, tags)
    except AnswerInvalid as error:
        raise _invalid(str(error)) from None
    said: dict[str, list[str]] = {}
    for fact in facts:
        said.setdefault(fact.source, []).append(fact.text)
    cleaned, cut = _checked(parsed, said)
    return Guarded(cleaned if isinstance(cleaned, output_model) else parsed, unsupported + cut)


def supported(statement: Statement, said: Mapping[str, Sequence[str]]) -> bool:
    """Whether a statement cites known facts, and names no resource beyond them.

    Args:
        statement: cites "Type/id".
        said: "Type/id" -> texts of the facts about it.
    """
    if not set(statement.sources) <= said.keys():
        return False
    named = (match[0].rstrip(".") for match in _RESOURCE.finditer(statement.text) if versions_of(match[1]))
    return set(named) <= set(statement.sources)


def _checked(value: Any, said: Mapping[str, Sequence[str]]) -> tuple[Any, int]:
    """`value` with its texts cleaned and its unsupported statements taken out, and their number."""
    if isinstance(value, str):
        return _clean(value), 0
    if isinstance(value, Statement):
        kept = value.model_copy(update={"text": _clean(value.text)})
        return (kept, 0) if kept.text and supported(kept, said) else (None, 1)
    if isinstance(value, list | tuple):
        checked = [(item, *_checked(item, said)) for item in value]
        items = [after for before, after, _ in checked if after is not None or before is None]
        return type(value)(items), sum(cut for _, _, cut in checked)
    if isinstance(value, BaseModel):
        fields = {name: _checked(getattr(value, name), said) for name in type(value).model_fields}
        update = {name: after for name, (after, _) in fields.items()}
        return value.model_copy(update=update), sum(cut for _, cut in fields.values())
    return value, 0


def _clean(text: str) -> str:
    spaced = "".join(" " if c.isspace() else c for c in text)
    return " ".join("".join(c for c in spaced if unicodedata.category(c) not in _NOT_TEXT).split())


def _invalid(what: str) -> StepFailed:
    return StepFailed(ErrorClass.MODEL_INVALID_OUTPUT, what)
