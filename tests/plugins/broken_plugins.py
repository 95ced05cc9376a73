"""Broken plugins: what `careloom new` writes with one thing changed for the worse, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.authoring.package import write_package

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugin-refusals.md"
HEAD = """# What is said of a broken plugin

Each row is the scenario that `careloom new` writes with one thing changed, and the first line that `careloom check`
says of it. Written by `tests/plugins/test_broken_plugins.py`; a test holds it.

| what is wrong | what is said | where it is found |
|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Broken:
    """One change.

    Attributes:
        name: of the case.
        about: what is wrong, for people.
        old, new: what is replaced in the module; an empty `old` appends.
        says: a part of what must be said.
    """

    name: str
    about: str
    old: str
    new: str
    says: str


def write(broken: Broken, folder: Path) -> Path:
    """The broken package."""
    package = write_package("pre_visit", f"x-{broken.name}", folder)
    module = package / f"x_{broken.name.replace('-', '_')}" / "scenario.py"
    text = module.read_text(encoding="utf-8")
    assert broken.old == "" or text.count(broken.old) >= 1, broken.old
    changed = text.replace(broken.old, broken.new, 1) if broken.old else text + broken.new
    module.write_text(changed, encoding="utf-8")
    return package


_DRAFTS = "        patient = subject(case)\n        if patient is None or not answer.points:"

_COUNTING = (
    "        globals().setdefault('_SEEN', []).append(1)\n"
    "        if len(globals()['_SEEN']) % 3 == 0:\n"
    f"            return ()\n{_DRAFTS}"
)
_NARRATIVE = '"text": narrative([(_TITLE.in_(case.locale), lines)], case.locale)'
_MARKUP = '"text": {"status": "generated", "div": f"<div>{lines[0].text}</div>"}'

BROKEN = (
    Broken("syntax", "the module cannot be imported", "_TITLE =", "_TITLE ==", "importing it failed with NameError"),
    Broken(
        "exit",
        "importing it ends the process",
        "_TITLE =",
        "raise SystemExit('no licence file')\n_TITLE =",
        "leave sys.exit() out",
    ),
    Broken(
        "hook-exit",
        "a hook ends the process",
        'scenario."""\n    return [',
        'scenario."""\n    raise SystemExit(3)\n    return [',
        "careloom_scenarios failed with SystemExit: 3; a plugin must not end the process",
    ),
    Broken(
        "no-hook", "no hook is implemented", "@hookimpl\n", "", "it implements no hook; have you forgotten @hookimpl"
    ),
    Broken("misspelt", "a hook is misspelt", "def careloom_scenarios", "def careloom_scenario", "unknown hook"),
    Broken(
        "no-return",
        "the hook returns nothing",
        'scenario."""\n    return [',
        'scenario."""\n    [',
        "have you forgotten `return`?",
    ),
    Broken(
        "class",
        "the class is returned, not an instance",
        "()]\n\n\ndef _said",
        "]\n\n\ndef _said",
        "with the parentheses",
    ),
    Broken(
        "no-deadline", "an attribute is missing", "    deadline = timedelta(minutes=5)\n", "", "deadline is missing"
    ),
    Broken("stage", "id and stage differ", "Stage.PRE_VISIT", "Stage.IN_VISIT", "is not <stage>.<name>"),
    Broken("no-trigger", "nothing starts it", "    triggers = (", "    triggers = () and (", "nothing triggers it"),
    Broken(
        "type", "a resource type that FHIR R4 lacks", '"AllergyIntolerance", {', '"Allergy", {', "has no resource type"
    ),
    Broken("comma", "a string where a tuple is meant", '("pending", "booked", "arrived")', '"booked"', "add a comma"),
    Broken("placeholder", "a placeholder that nobody fills", '"{patient}"}', '"{subject}"}', "unknown placeholder"),
    Broken(
        "fhirpath",
        "FHIRPath that does not compile",
        ' why="',
        ' fhirpath="status = (", why="',
        "correct the expression",
    ),
    Broken("unbounded", "a string without a bound", "Annotated[str, Field(max_length=120)]", "str", "unbounded string"),
    Broken(
        "open-list",
        "a list without a bound",
        "Annotated[list[Point], Field(max_length=3)]",
        "list[Point]",
        "unbounded list",
    ),
    Broken(
        "uncut",
        "a statement that cannot be cut",
        "Annotated[list[Point], Field(max_length=3)]",
        "Point",
        "so that it can be cut",
    ),
    Broken(
        "questions",
        "a method that is never called",
        "    def rules(",
        "    def questions(self, case):\n        return {}\n\n    def rules(",
        "is never called without knowledge",
    ),
    Broken("open-keys", "answers may hold keys nobody declared", 'extra="forbid", ', "", "open to any key"),
    Broken("requests", "an HTTP client is imported", "from pydantic", "import httpx\nfrom pydantic", "imports httpx"),
    Broken(
        "clock",
        "it looks at the clock",
        _DRAFTS,
        f"        {{}}.get(__import__('datetime').datetime.now())\n{_DRAFTS}",
        "asks for the clock",
    ),
    Broken("chance", "it throws dice", _DRAFTS, f"        __import__('random').random()\n{_DRAFTS}", "asks for chance"),
    Broken(
        "file", "it reads a file each time", _DRAFTS, f"        open(__file__).close()\n{_DRAFTS}", "asks for a file"
    ),
    Broken("state", "it counts the cases", _DRAFTS, _COUNTING, "two different outcomes"),
    Broken(
        "changes", "it changes the case", _DRAFTS, f"        case.trigger['seen'] = True\n{_DRAFTS}", "changed the case"
    ),
    Broken(
        "huge-cap", "it asks for the whole record", "cap=10),\n    )", "cap=5000),\n    )", "asks for 5000 resources"
    ),
    Broken(
        "prefix",
        "the instruction holds the case",
        "_INSTRUCTION.in_(case.locale), [",
        'f"{_INSTRUCTION.in_(case.locale)} {case.resources}", [',
        "the instruction depends on the case",
    ),
    Broken(
        "english",
        "the instruction is in one language",
        "Prompt(_INSTRUCTION.in_(case.locale)",
        "Prompt(_INSTRUCTION.en",
        "is not Chinese",
    ),
    Broken(
        "no-patient",
        "it fails on an empty record",
        "if patient is None or not answer.points",
        'if case.patient["id"] == "" or not answer.points',
        "TypeError",
    ),
    Broken("invalid", "the draft is not valid FHIR", '"status": "preparation"', '"status": "draft"', "code-invalid"),
    Broken(
        "foreign",
        "the draft names another patient",
        '"subject": {"reference": patient}',
        '"subject": {"reference": "Patient/p2"}',
        "which the case does not hold",
    ),
    Broken("markup", "words go into the narrative as they are", _NARRATIVE, _MARKUP, "narrative"),
    Broken(
        "no-source",
        "a rule without a published source",
        "citation=_HIGH_CRITICALITY",
        'citation=""',
        "names no published source",
    ),
    Broken(
        "rule-gone", "the rule no longer finds what it must", '== "high"', '== "extreme"', "findings are [], expected"
    ),
)
