"""What a plugin has before it is broken: what `careloom new` writes, then with steps, a panel or a knowledge base."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.authoring.package import write_package


@dataclass(frozen=True, slots=True)
class Broken:
    """One change.

    Attributes:
        name: of the case.
        about: what is wrong, for people.
        old, new: what is replaced in the module; an empty `old` appends.
        says: a part of what must be said.
        base: what the module has before: "steps", "panel", "knowledge", or nothing more than `careloom new` writes.
    """

    name: str
    about: str
    old: str
    new: str
    says: str
    base: str = ""


_RULES = "    def rules(self"
_STEPS = '''    steps = (Step("doubts", Doubts),)

    def next_prompt(self, case: Case, step: Step, answers: Any) -> Prompt | None:
        """Asked where there is something to doubt."""
        if not answers[FIRST].points:
            return None
        facts = [Fact(source, point.text) for point in answers[FIRST].points for source in point.sources]
        return Prompt(_DOUBTS.in_(case.locale), facts)

    def drafts_of_steps(self, case: Case, answers: Any, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The points, and behind them what is doubted."""
        doubts = answers["doubts"].weak if "doubts" in answers else []
        every = Answer.model_construct(points=[*answers[FIRST].points, *doubts])
        return self.drafts(case, every, findings)

'''
_DOUBTS = '''_DOUBTS = Text(zh="这些要点中哪些证据不足?写入 weak。", en="Which of these points are weak? Give weak.")


class Doubts(BaseModel):
    """What may be answered to the second question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weak: Annotated[list[Point], Field(max_length=2)]


class X'''
_PANEL = '''    panel = True

    def drafts_of_panel(self, case: Case, answer: Any, findings: Sequence[Finding]) -> Sequence[Draft]:
        """Each member's points under its name."""
        patient = subject(case)
        sections = [
            (model, [Line(point.text, cited(point.sources)) for point in said.points])
            for model, said in answer.answers.items()
            if said.points
        ]
        if patient is None or not sections:
            return ()
        resource = {
            "resourceType": "Communication",
            "text": narrative(sections, case.locale),
            "status": "preparation",
            "subject": {"reference": patient},
            "sender": {"reference": DEVICE},
            "payload": [{"contentString": f"{model}: {line.text}"} for model, lines in sections for line in lines],
        }
        return [Draft("points", resource, cited(s for _, lines in sections for line in lines for s in line.sources))]

'''
_KNOWLEDGE = '''    knowledge = (KnowledgeQuery("advice", cap=2),)

    def questions(self, case: Case) -> dict[str, str]:
        """About each allergy."""
        return {"advice": " ".join(display(r.get("code")) for r in _current(case))}

'''


def _imports(text: str, *names: str) -> str:
    start = "from plugins.scenario import ("
    return text.replace(start, start + "".join(f"\n    {name}," for name in names), 1)


def _with_steps(text: str) -> str:
    return _imports(text, "FIRST", "Step").replace("class X", _DOUBTS, 1).replace(_RULES, _STEPS + _RULES, 1)


def _with_panel(text: str) -> str:
    return text.replace(_RULES, _PANEL + _RULES, 1)


def _with_knowledge(text: str) -> str:
    return _imports(text, "KnowledgeQuery").replace(_RULES, _KNOWLEDGE + _RULES, 1)


def _answered_steps(case: dict[str, Any]) -> None:
    first = case.pop("answer")
    left = [point for point in first["points"] if point["sources"] != ["R99"]]
    case["answers"] = {"first": first} | ({"doubts": {"weak": []}} if left else {})
    case["expect"]["asked"] = list(case["answers"])


def _answered_panel(case: dict[str, Any]) -> None:
    answer = case.pop("answer")
    case["panel"] = {"one": answer, "other": {"points": []}, "gone": "model_timeout"}
    case["expect"]["notices"] = ["panel.absent", *(["panel.disagreement"] if answer["points"] else [])]


#: What a module has before it is broken, and what its golden cases then say.
BASES: Mapping[str, tuple[Callable[[str], str], Callable[[dict[str, Any]], None]]] = {
    "": (str, lambda case: None),
    "steps": (_with_steps, _answered_steps),
    "panel": (_with_panel, _answered_panel),
    "knowledge": (_with_knowledge, lambda case: None),
}


def write(broken: Broken, folder: Path) -> Path:
    """The broken package."""
    package = write_package("pre_visit", f"x-{broken.name}", folder)
    module = package / f"x_{broken.name.replace('-', '_')}" / "scenario.py"
    build, answer = BASES[broken.base]
    for file in (package / "tests" / "golden").glob("*.json"):
        case = json.loads(file.read_text(encoding="utf-8"))
        answer(case)
        file.write_text(json.dumps(case, ensure_ascii=False), encoding="utf-8")
    text = build(module.read_text(encoding="utf-8"))
    assert broken.old == "" or text.count(broken.old) >= 1, broken.old
    changed = text.replace(broken.old, broken.new, 1) if broken.old else text + broken.new
    module.write_text(changed, encoding="utf-8")
    return package
