"""Golden cases: a case, a model's answer and what must come of it, as JSON that a clinician can read and add to.

    {"about": "...", "kind": "normal", "locale": "zh", "now": "2026-11-22T08:00:00+08:00",
     "trigger": {...}, "patient": {...}, "resources": {"problems": [...]}, "truncated": [],
     "passages": {"<knowledge query>": [{"id": "...", "text": "...", "title": "...", "origin": "...", "date": "...",
                                         "licence": "...", "locale": "zh"}]},
     "answer": {...} or absent for a stand-in answer,
     "expect": {"starts": true, "findings": ["code"], "drafts": ["name"], "says": ["text"], "never_says": ["text"],
                "cut": 0, "values": {"acuity": {"prediction.0.outcome.coding.0.code": "2"}}}}

`says` is looked for in the drafts' text; answers cite tags (R1, R2, ...) as a model does. `kind` is one of `KINDS`, or
absent for what is none of them (a death, a wrong trigger, a truncated record).

Of a scenario with steps `answers` stands instead of `answer`: `{"first": {...}, "<step>": {...}}`; a stand-in answers
what is left out; `expect` may say which questions are `asked`, `["first", "<step>"]`. Of one with a panel `panel` does:
`{"model-a": {...}, "model-b": {...}, "model-c": "model_timeout"}`, two answers at least, and why a member gives none;
`expect` may say the `notices`, such as `["panel.disagreement", "panel.absent"]`, each once.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from plugins.errors import NotConformant
from plugins.fhir_text import listed
from plugins.matching import Matcher
from plugins.scenario import FIRST, Case, Passage, Scenario
from plugins.walking import Answers
from plugins.walking import Outcome as Outcome
from plugins.walking import run as run

#: What every built-in scenario has a golden case of, in each language.
KINDS = ("normal", "red_flag", "empty", "contradictory", "injected")
_KEYS = {"starts", "findings", "drafts", "says", "never_says", "cut", "values", "asked", "notices"}
#: Where a model's answer may stand, one of them in a case.
_ANSWERS = ("answer", "answers", "panel")


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One file.

    Attributes:
        name: the file's stem.
        about: one line for people.
        case: what the scenario is given.
        answer: what the model says, or None for a stand-in answer.
        expect: what must come of it.
        kind: one of `KINDS`; "" for a case that is none of them.
        answers: instead of `answer`, of a scenario with steps: question -> what the model says.
        panel: instead of `answer`, of a scenario with a panel: member -> what it says, or why it does not answer.
    """

    name: str
    about: str
    case: Case
    answer: Mapping[str, Any] | None
    expect: Mapping[str, Any]
    kind: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    panel: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> Answers:
        """What is answered, question by question."""
        by = self.answers if self.answer is None else {FIRST: self.answer}
        return Answers(
            by={name: _json(answer) for name, answer in by.items()},
            panel={name: _json(answer) for name, answer in self.panel.items() if not isinstance(answer, str)},
            absent={name: why for name, why in self.panel.items() if isinstance(why, str)},
        )


def read(folder: Path) -> list[GoldenCase]:
    """The golden cases of a folder, by name."""
    return [read_case(path) for path in sorted(folder.glob("*.json"))]


def read_case(path: Path) -> GoldenCase:
    """The golden case of one file.

    Raises:
        NotConformant: it expects something that is unknown, is of an unknown kind, or says twice what is answered.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    unknown = set(data["expect"]) - _KEYS
    if unknown:
        raise NotConformant(
            f"{path.name}: expect: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(_KEYS))}"
        )
    kind = data.get("kind", "")
    if kind and kind not in KINDS:
        raise NotConformant(f"{path.name}: kind: unknown {kind!r}; known: {', '.join(KINDS)}, or leave it out")
    answered = [name for name in _ANSWERS if data.get(name) is not None]
    if len(answered) > 1:
        raise NotConformant(f"{path.name}: {' and '.join(answered)}: one of them says what is answered; leave one out")
    case = Case(
        trigger=data["trigger"],
        patient=data.get("patient"),
        resources=data.get("resources", {}),
        locale=data["locale"],
        now=datetime.fromisoformat(data["now"]),
        truncated=frozenset(data.get("truncated", ())),
        passages={name: [Passage(**each) for each in found] for name, found in data.get("passages", {}).items()},
    )
    answers, panel = data.get("answers") or {}, data.get("panel") or {}
    return GoldenCase(path.stem, data["about"], case, data.get("answer"), data["expect"], kind, answers, panel)


def check(scenario: Scenario[Any], golden: GoldenCase) -> Outcome:
    """Run a golden case and hold the outcome against what it expects.

    Raises:
        NotConformant: it is not what was expected; says what differs.
    """
    given = golden.said
    outcome = run(scenario, golden.case, answers=given)
    said = "\n".join(words(d.resource) for d in outcome.drafts)
    expect = golden.expect
    differences = [
        _differs("starts", expect, bool(Matcher([scenario]).match(golden.case.trigger))),
        _differs("findings", expect, sorted(f.code for f in outcome.findings)),
        _differs("drafts", expect, sorted(d.name for d in outcome.drafts)),
        _differs("cut", expect, outcome.cut),
        _differs("asked", expect, sorted(each.name for each in outcome.asked)),
        _differs("notices", expect, sorted({f.code for f in outcome.notices})),
        *_unheard(given, outcome),
        *(f"does not say {text!r}" for text in expect.get("says", ()) if text not in said),
        *(f"says {text!r}" for text in expect.get("never_says", ()) if text in said),
        *_values(outcome, expect.get("values", {})),
    ]
    found = [difference for difference in differences if difference]
    if found:
        raise NotConformant(f"{scenario.id}: golden case {golden.name!r} ({golden.about}): {'; '.join(found)}")
    return outcome


def words(resource: Mapping[str, Any]) -> str:
    """All that a reader of a draft sees: narrative without tags, notes, payloads, titles and documents inside."""
    narrative = html.unescape(re.sub(r"<[^>]+>", " ", str((resource.get("text") or {}).get("div", ""))))
    shown = [narrative, *(str(resource.get(name, "")) for name in ("title", "description"))]
    shown += [str(n.get("text")) for n in listed(resource, "note")]
    shown += [str(p.get("contentString")) for p in listed(resource, "payload")]
    for content in listed(resource, "content"):
        shown.append(base64.b64decode(content["attachment"]["data"]).decode())
    return "\n".join(shown)


def _unheard(given: Answers, outcome: Outcome) -> Sequence[str]:
    """Steps that were answered and not asked; a case of which no model is asked at all may have an answer."""
    asked = {each.name for each in outcome.asked}
    return [f"step {name!r} is answered, and was not asked" for name in given.by if asked and name not in asked]


def _json(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False)


def _differs(name: str, expect: Mapping[str, Any], found: object) -> str | None:
    if name not in expect:
        return None
    wanted = sorted(expect[name]) if isinstance(expect[name], list) else expect[name]
    return None if wanted == found else f"{name} are {found}, expected {wanted}"


def _values(outcome: Outcome, wanted: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    drafts = {draft.name: draft.resource for draft in outcome.drafts}
    differences = []
    for name, paths in wanted.items():
        for path, value in paths.items():
            found = _at(drafts.get(name), path)
            if found != value:
                differences.append(f"{name}.{path} is {found!r}, expected {value!r}")
    return differences


def _at(node: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(node, list) and part.isdigit():
            node = node[int(part)] if int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node
