"""Several models asked the same, side by side: their answers kept apart, and where they agree or do not.

Nothing is averaged or voted away: the reader sees who said what. Agreement is computed in code, over fields of closed
sets and numbers, and over how many statements there are and what they cite; words are not compared.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from plugins.scenario import Finding, Severity, Statement, Text

Answer = TypeVar("Answer", bound=BaseModel)

DISAGREEMENT = "panel.disagreement"
ABSENT = "panel.absent"
_CITATION = "careloom panel"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the models said in one field.

    Attributes:
        field: dotted path in the output model.
        said: model -> its value in words; of a list of models or statements, how many.
        overlap: of statements, cited sources that all have in common, of all that are cited (0 to 1); else None.
    """

    field: str
    said: Mapping[str, str]
    overlap: float | None = None

    @property
    def agreed(self) -> bool:
        """Whether all say the same."""
        return len(set(self.said.values())) <= 1 and self.overlap in (None, 1.0)


@dataclass(frozen=True, slots=True)
class PanelAnswer(Generic[Answer]):
    """What a panel said.

    Attributes:
        answers: model -> its answer, which has passed the guards; at least two, in the route's order.
        absent: model -> why it did not answer: a class of error, or "switched_off".
    """

    answers: Mapping[str, Answer]
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def agreement(self) -> Mapping[str, Agreement]:
        """Field -> what the models said in it, for every field that can be compared."""
        first = next(iter(self.answers.values()))
        return {a.field: a for a in (_agreement(f, self.answers) for f in _comparable(type(first), ()))}

    def findings(self) -> tuple[Finding, ...]:
        """What the reader must be told: each field in which the models differ, and who did not answer."""
        differ = [_difference(a) for a in self.agreement.values() if not a.agreed]
        return (*differ, *(_absence(model, why) for model, why in self.absent.items()))


_Path = tuple[str, ...]


def _comparable(model: type[BaseModel], above: _Path) -> Iterator[_Path]:
    """The fields whose values can be compared: everything but free text."""
    for name, info in model.model_fields.items():
        kinds = _kinds(info.annotation)
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel) and not issubclass(k, Statement)]
        if inner and not _is_list(info.annotation):
            for each in inner:
                yield from _comparable(each, (*above, name))
        elif str not in kinds:
            yield (*above, name)


def _kinds(annotation: Any) -> set[Any]:
    """The types and literal sets that a field can hold, out of lists and unions."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (list, tuple, Union, types.UnionType):
        return {kind for part in get_args(annotation) if part is not Ellipsis for kind in _kinds(part)}
    return {Literal} if get_origin(annotation) is Literal else {annotation}


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_list(get_args(annotation)[0])
    return get_origin(annotation) in (list, tuple) or any(map(_is_list, _union(annotation)))


def _union(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()


def _agreement(path: _Path, answers: Mapping[str, BaseModel]) -> Agreement:
    values = {model: _at(answer, path) for model, answer in answers.items()}
    cited = {model: _sources(value) for model, value in values.items()}
    overlap = None
    if any(sources is not None for sources in cited.values()):
        sets = [sources or frozenset() for sources in cited.values()]
        union = frozenset[str]().union(*sets)
        overlap = len(sets[0].intersection(*sets)) / len(union) if union else 1.0
    return Agreement(".".join(path), {model: _words(value) for model, value in values.items()}, overlap)


def _at(value: Any, path: _Path) -> Any:
    for name in path:
        value = getattr(value, name, None)
    return value


def _sources(value: Any) -> frozenset[str] | None:
    """What the statements in a value cite; None where it holds none."""
    said = [s for s in (value if isinstance(value, list | tuple) else (value,)) if isinstance(s, Statement)]
    return frozenset(source for statement in said for source in statement.sources) if said else None


def _words(value: Any) -> str:
    """A value as the reader sees it; what holds text is counted, not repeated."""
    if isinstance(value, list | tuple):
        plain = not any(isinstance(item, BaseModel) for item in value)
        return ", ".join(sorted(map(_words, value))) if value and plain else str(len(value))
    if isinstance(value, BaseModel):
        return "1"
    if value is None:
        return "-"
    return str(value.value if isinstance(value, Enum) else value)


def _difference(agreement: Agreement) -> Finding:
    said = "; ".join(f"{model}: {value}" for model, value in agreement.said.items())
    zh, en = f"模型意见不一致({agreement.field}):{said}", f"The models disagree on {agreement.field}: {said}"
    if agreement.overlap is not None:
        share = f"{agreement.overlap:.0%}"
        zh, en = f"{zh};引用依据重合 {share}", f"{en}; {share} of what they cite is the same"
    return Finding(DISAGREEMENT, Severity.WARNING, Text(zh, en), (), _CITATION)


def _absence(model: str, why: str) -> Finding:
    text = Text(f"模型 {model} 未作答({why})", f"The model {model} did not answer ({why})")
    return Finding(ABSENT, Severity.WARNING, text, (), _CITATION)
