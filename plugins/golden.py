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
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from plugins.errors import NotConformant
from plugins.fhir_text import listed
from plugins.matching import Matcher
from plugins.prompting import chat, parse_answer
from plugins.scenario import Case, Draft, Finding, Passage, Scenario
from plugins.stand_in import stand_in_answer

#: What every built-in scenario has a golden case of, in each language.
KINDS = ("normal", "red_flag", "empty", "contradictory", "injected")
_KEYS = {"starts", "findings", "drafts", "says", "never_says", "cut", "values"}


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
    """

    name: str
    about: str
    case: Case
    answer: Mapping[str, Any] | None
    expect: Mapping[str, Any]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario made of one case."""

    findings: tuple[Finding, ...]
    drafts: tuple[Draft, ...]
    cut: int


def read(folder: Path) -> list[GoldenCase]:
    """The golden cases of a folder, by name."""
    return [read_case(path) for path in sorted(folder.glob("*.json"))]


def read_case(path: Path) -> GoldenCase:
    """The golden case of one file.

    Raises:
        NotConformant: it expects something that is unknown, or is of an unknown kind.
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
    case = Case(
        trigger=data["trigger"],
        patient=data.get("patient"),
        resources=data.get("resources", {}),
        locale=data["locale"],
        now=datetime.fromisoformat(data["now"]),
        truncated=frozenset(data.get("truncated", ())),
        passages={name: [Passage(**each) for each in found] for name, found in data.get("passages", {}).items()},
    )
    return GoldenCase(path.stem, data["about"], case, data.get("answer"), data["expect"], kind)


def run(scenario: Scenario[Any], case: Case, answer_text: str | None = None) -> Outcome:
    """What the runner does, without its I/O: rules, rule drafts, prompt, answer, drafts.

    Args:
        answer_text: the model's answer; a stand-in answer for None.

    Raises:
        AnswerInvalid: the answer does not fit the scenario's output model.
    """
    findings = tuple(scenario.rules(case))
    drafts = list(scenario.rule_drafts(case, findings))
    if not scenario.asks(case, findings):
        return Outcome(findings, tuple(drafts), 0)
    talk = chat(scenario.prompt(case), case)
    text = answer_text if answer_text is not None else stand_in_answer(scenario.output_model, talk.tags)
    answer, cut = parse_answer(scenario.output_model, text, talk.tags)
    drafts += scenario.drafts(case, answer, findings)
    return Outcome(findings, tuple(drafts), cut)


def check(scenario: Scenario[Any], golden: GoldenCase) -> Outcome:
    """Run a golden case and hold the outcome against what it expects.

    Raises:
        NotConformant: it is not what was expected; says what differs.
    """
    text = json.dumps(golden.answer, ensure_ascii=False) if golden.answer is not None else None
    outcome = run(scenario, golden.case, text)
    said = "\n".join(words(d.resource) for d in outcome.drafts)
    expect = golden.expect
    differences = [
        _differs("starts", expect, bool(Matcher([scenario]).match(golden.case.trigger))),
        _differs("findings", expect, sorted(f.code for f in outcome.findings)),
        _differs("drafts", expect, sorted(d.name for d in outcome.drafts)),
        _differs("cut", expect, outcome.cut),
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
