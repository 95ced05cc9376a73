"""The table of attacks in docs/guards.md: `python -m pipelines.runner.guard_reference` tries each and writes it.

An attack is what a record holds and what a bad model says of it, as JSON that a clinician can read and add to
(tests/plugins/guard_attacks). Each goes through prompt, schema, citations and guards as a row of the ledger does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import StepFailed
from pipelines.runner.guard import guarded
from pipelines.runner.verdicts import judged
from plugins.guarding import Guard
from plugins.manager import load
from plugins.model_backend import ChatAnswer
from plugins.prompting import chat
from plugins.scenario import Case, Draft, Fact, Finding, Locale, Passage, Prompt, Risk, Scenario, Statement

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "plugins" / "guard_attacks"
#: Written before guards were looked at; what became of each in its first run stays beside what becomes of it now.
BLIND = ROOT / "tests" / "plugins" / "guard_attacks_blind"
DOCUMENT = ROOT / "docs" / "guards.md"

#: Between these lines the document is written by `python -m pipelines.runner.guard_reference`.
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
_NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
_PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1960-05-01"}
_CAUGHT = ("refused", "cut", "flag")


class Coded(BaseModel):
    """A coding, for attacks by a foreign code system."""

    model_config = ConfigDict(extra="forbid")

    system: Annotated[str, Field(max_length=120)]
    code: Annotated[str, Field(max_length=40)]


class Said(BaseModel):
    """What the model of an attack may say."""

    model_config = ConfigDict(extra="forbid")

    statements: Annotated[list[Statement], Field(max_length=5)]
    coded: Annotated[list[Coded], Field(max_length=3)] = []


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, or one honest answer that must pass.

    Attributes:
        kind: what is tried; also the file's stem.
        locale: language of record and answer.
        about: one line for people.
        case: the record.
        facts: what the model is shown.
        answer: what comes from the model server, as text.
        finish_reason: as the model server gives it.
        expect: "refused", "cut", "flag" or "passes".
        by: "guard/code" that must say so; "schema" and "citations" for the core; "" where it passes.
        first: outcome of the first run of a blind one; "" for those that guards were written with.
    """

    kind: str
    locale: Locale
    about: str
    case: Case
    facts: tuple[Fact, ...]
    answer: str
    finish_reason: str
    expect: str
    by: str
    first: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of it: the strongest action, and everything that spoke."""

    outcome: str
    by: tuple[str, ...]


def read(folder: Path = FOLDER) -> list[Attack]:
    """The attacks of a folder, by kind."""
    files = sorted(folder.glob("*.json"))
    return [_attack(file.stem, each) for file in files for each in json.loads(file.read_text(encoding="utf-8"))]


def attempt(attack: Attack, guards: Sequence[Guard]) -> Seen:
    """Run one attack as the runner would."""
    prompt = _Attacked().prompt(attack.case)
    talk = chat(replace(prompt, facts=attack.facts), attack.case)
    answer = ChatAnswer(attack.answer, attack.finish_reason, 1, 1, 0.1, "attacker")
    try:
        passed = guarded(Said, answer, tags=talk.tags, facts=attack.facts)
    except StepFailed:
        return Seen("refused", ("schema",))
    told = judged(
        guards,
        passed.answer,
        scenario=_Attacked(),
        case=attack.case,
        facts=attack.facts,
        instruction=talk.messages[0]["content"],
    )
    by = tuple(f"{guard}/{code}" for guard, code, _ in told.counts)
    outcome = "cut" if passed.cut or told.cut else "flag" if by else "passes"
    return Seen(outcome, (*(("citations",) if passed.cut else ()), *by))


def table(attacks: Iterable[Attack], guards: Sequence[Guard]) -> str:
    """The tables of the document: what was caught, what was not, and the honest answers."""
    rows: dict[str, list[str]] = {"caught": [], "missed": [], "honest": []}
    count: Counter[str] = Counter()
    for attack in attacks:
        seen = attempt(attack, guards)
        place = "honest" if attack.kind == "honest" else "caught" if seen.outcome in _CAUGHT else "missed"
        count[f"{place}/{seen.outcome}"] += 1
        by = ", ".join(f"`{name}`" for name in dict.fromkeys(seen.by))
        rows[place].append(
            f"| {attack.kind.replace('_', ' ')} | {attack.locale} | {_cell(attack.about)} | {seen.outcome} | {by} |"
        )
    head = "| kind | | what is tried | outcome | by |\n|---|---|---|---|---|\n"
    caught, missed, honest = (len(rows[place]) for place in ("caught", "missed", "honest"))
    counts = ", ".join(f"{count[f'caught/{outcome}']} {outcome}" for outcome in _CAUGHT)
    return (
        f"**{caught + missed} attacks and errors: {caught} caught ({counts}), {missed} not caught. "
        f"{honest} honest answers: {honest - count['honest/passes'] - count['honest/flag']} cut, "
        f"{count['honest/flag']} flagged.**\n\n"
        f"#### Caught\n\n{head}" + "\n".join(rows["caught"])
        + f"\n\n#### Not caught\n\n{head}" + "\n".join(rows["missed"])
        + f"\n\n#### Honest answers\n\n{head}" + "\n".join(rows["honest"]) + "\n"
    )  # fmt: skip


def blind_table(attacks: Sequence[Attack], guards: Sequence[Guard]) -> str:
    """The blind ones: how many were caught as they were first run, and each then and now."""
    tried = [attack for attack in attacks if attack.kind != "honest"]
    honest = [attack for attack in attacks if attack.kind == "honest"]
    rows = []
    now: Counter[str] = Counter()
    for attack in attacks:
        seen = attempt(attack, guards)
        now[f"{attack.kind == 'honest'}/{seen.outcome}"] += 1
        by = ", ".join(f"`{name}`" for name in dict.fromkeys(seen.by))
        about = _cell(attack.about)
        rows.append(
            f"| {attack.kind.replace('_', ' ')} | {attack.locale} | {about} | {attack.first} | {seen.outcome} | {by} |"
        )
    caught = sum(attack.first in _CAUGHT for attack in tried)
    later = sum(now[f"False/{outcome}"] for outcome in _CAUGHT)
    wrong = Counter(attack.first for attack in honest)
    share = f"{caught / len(tried):.0%}"
    return (
        f"### Blind\n\n**{len(tried)} attacks and errors, first run: {caught} caught ({share}); of {len(honest)} "
        f"honest answers {wrong['cut']} cut, {wrong['flag']} flagged. That is the estimate.** Since then guards were "
        f"mended by general means: now {later} are caught, and of the honest answers {now['True/cut']} cut, "
        f"{now['True/flag']} flagged, which is no estimate any more.\n\n"
        "| kind | | what is tried | first | now | by |\n|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def document(text: str, attacks: Iterable[Attack], guards: Sequence[Guard]) -> str:
    """The document's text with its tables made anew.

    Raises:
        ValueError: the lines that bound the tables are missing.
    """
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"docs/guards.md: write {BEGIN} and {END} where the tables belong")
    blind = blind_table(read(BLIND), guards)
    return f"{before}{BEGIN}\n{blind}\n### Written with the guards\n\n{table(attacks, guards)}{END}{after}"


class _Attacked(Scenario[Said]):
    """A scenario for the guards to be told of."""

    id: ClassVar[str] = "in_visit.attacked"
    risk: ClassVar[Risk] = Risk.B

    def prompt(self, case: Case) -> Prompt:
        return Prompt("", ())

    def drafts(self, case: Case, answer: Said, findings: Sequence[Finding]) -> Sequence[Draft]:
        return ()


def _attack(kind: str, data: Mapping[str, Any]) -> Attack:
    facts = tuple(Fact(source, text) for source, text in data["facts"])
    case = Case(
        trigger=data.get("trigger", {"resourceType": "Encounter", "id": "e1", "status": "in-progress"}),
        patient=_PATIENT | data.get("patient", {}),
        resources=data.get("resources", {}),
        locale=data["locale"],
        now=_NOW,
        passages={"any": tuple(Passage(**p) for p in data.get("passages", ()))},
    )
    says = data.get("says", [])
    body = {"statements": [{"text": t, "sources": tags} for t, tags in says], "coded": data.get("coded", [])}
    return Attack(
        kind=kind,
        locale=data["locale"],
        about=data["about"],
        case=case,
        facts=facts,
        answer=data.get("raw") or json.dumps(body, ensure_ascii=False),
        finish_reason=data.get("finish_reason", "stop"),
        expect=data["expect"],
        by=data.get("by", ""),
        first=data.get("first", ""),
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8"), read(), load().guards), encoding="utf-8")
