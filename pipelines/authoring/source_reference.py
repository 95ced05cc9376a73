"""The table in docs/clinical-sources.md: every clinical rule, its citation, and where it was looked up; or nowhere.

`python -m pipelines.authoring.source_reference` writes it from the rules' own files and from
`plugins/clinical_sources.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "clinical-sources.md"
SOURCES = ROOT / "plugins" / "clinical_sources.toml"
#: Files of rules, below plugins/, and the tables in them that hold one rule each.
FILES = {
    "red_flags.toml": ("flag",),
    "order_safety_rules.toml": ("rule",),
    "adherence_rules.toml": ("stop", "says"),
    "examinations.toml": ("rule",),
    "follow_up_rules.toml": ("rule",),
    "note_parts.toml": ("kind",),
    "patient_questions.toml": ("rule",),
    "guards/unsafe_advice.toml": ("rule",),
}
#: Rules whose citation stands in a file's head, or in code.
OTHERS = {
    "news2/table": "Royal College of Physicians, National Early Warning Score (NEWS) 2, London 2017, charts 1, 2, 4",
    "adherence_rules/pdc": "Pharmacy Quality Alliance (PQA), Proportion of Days Covered, threshold 80 %",
}
_HEAD = """# Where the clinical rules come from

Every rule names a published source; a rule that had none was left out, and stands in its file under LEFT OUT. Made by
`python -m pipelines.authoring.source_reference`; a test holds it to the rules and to `plugins/clinical_sources.toml`.

*Looked up* means that the rule's words or numbers stood in what was read on the day beside it: an excerpt of the
publisher's page where its address stands here, else of a copy or an account of it. *From memory* means that nobody has
looked yet, or that what was found did not hold the rule's words; such a rule is corrected or left out, and a test
refuses it. **Neither is a clinician's review: before anybody relies on a rule, a clinician of the house has to read it,
and its source.**

"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        key: "<file>/<code>".
        citation: what its file names.
        seen: where that was looked up; "" where it was not.
        day: when; "" where it was not.
    """

    key: str
    citation: str
    seen: str
    day: str


def rules() -> list[Rule]:
    """Every rule of every file, in their order.

    Raises:
        ValueError: something is said to be looked up that is no rule, or on two days.
    """
    seen = _seen()
    found = [Rule(key, citation, *seen.get(key, ("", ""))) for key, citation in _cited()]
    unknown = sorted(set(seen) - {rule.key for rule in found})
    if unknown:
        raise ValueError(f"{SOURCES.name}: no such rule: {', '.join(unknown)}; correct the key, or take it out")
    return found


def document() -> str:
    """The whole document."""
    every = rules()
    looked_up = [rule for rule in every if rule.seen]
    memory = [rule for rule in every if not rule.seen]
    count = f"**{len(every)} rules: {len(looked_up)} looked up, {len(memory)} from memory.**\n\n"
    first = "\n".join(
        f"| `{rule.key}` | {_cell(rule.citation)} | {_cell(rule.seen)} | {rule.day} |" for rule in looked_up
    )
    second = "\n".join(f"| `{rule.key}` | {_cell(rule.citation)} |" for rule in memory)
    return (
        _HEAD + count
        + f"## Looked up\n\n| rule | source | what was read, and where | on |\n|---|---|---|---|\n{first}\n\n"
        + "## From memory\n\n" + (f"| rule | source |\n|---|---|\n{second}\n" if memory else "None.\n")
    )  # fmt: skip


def _seen() -> dict[str, tuple[str, str]]:
    """What was read of each rule, and on which day."""
    found: dict[str, tuple[str, str]] = {}
    for day, read in _sources()["seen"].items():
        twice = sorted(set(read) & set(found))
        if twice:
            raise ValueError(f"{SOURCES.name}: on two days: {', '.join(twice)}; keep the later one")
        found |= {key: (where, day) for key, where in read.items()}
    return found


def _cited() -> Iterator[tuple[str, str]]:
    yield from OTHERS.items()
    for name, tables in FILES.items():
        data = tomllib.loads((ROOT / "plugins" / name).read_text(encoding="utf-8"))
        for table in tables:
            for rule in data[table]:
                yield f"{Path(name).stem}/{rule['code']}", str(rule["citation"])


def _sources() -> Mapping[str, Any]:
    return tomllib.loads(SOURCES.read_text(encoding="utf-8"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
