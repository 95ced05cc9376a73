"""Broken plugins: what `careloom new` writes with one thing changed for the worse, and what is said of it."""

from __future__ import annotations

from pathlib import Path

from tests.plugins.unbroken_plugins import Broken

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugin-refusals.md"
HEAD = """# What is said of a broken plugin

Each row is the scenario that `careloom new` writes with one thing changed, and the first line that `careloom check`
says of it; where it is about a step, a panel or the knowledge base, one that has it (`tests/plugins/broken_plugins.py`)
and comes through the whole kit before it is changed. Written by `tests/plugins/test_broken_plugins.py`, which holds it.

| what is wrong | what is said | where it is found |
|---|---|---|
"""

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
    Broken(
        "step-raises",
        "a step's question fails",
        "if not answers[FIRST].points:",
        'if not answers["points"]:',
        "KeyError: 'points' in next_prompt() for step 'doubts'",
        "steps",
    ),
    Broken(
        "step-text",
        "a step is asked with bare text",
        "return Prompt(_DOUBTS.in_(case.locale), facts)",
        "return _DOUBTS.in_(case.locale)",
        "next_prompt() for step 'doubts' returned a str; return a Prompt",
        "steps",
    ),
    Broken(
        "step-long",
        "a step's instruction is too long",
        "Prompt(_DOUBTS.in_(case.locale)",
        "Prompt(_DOUBTS.in_(case.locale) * 40",
        "step 'doubts': zh: instruction empty or too long",
        "steps",
    ),
    Broken(
        "step-english",
        "a step's instruction is in one language",
        "Prompt(_DOUBTS.in_(case.locale)",
        "Prompt(_DOUBTS.en",
        "step 'doubts': the zh instruction is not Chinese",
        "steps",
    ),
    Broken(
        "step-quotes",
        "a step's instruction holds the answer before it",
        "Prompt(_DOUBTS.in_(case.locale)",
        "Prompt(_DOUBTS.in_(case.locale) + answers[FIRST].points[0].text",
        "step 'doubts': zh: the instruction depends on the case",
        "steps",
    ),
    Broken(
        "step-never",
        "no case leads to the step",
        "if not answers[FIRST].points:",
        "if len(answers[FIRST].points) < 9:",
        "step 'doubts' is asked in no case",
        "steps",
    ),
    Broken(
        "step-counts",
        "a step's question differs each time",
        "        facts = [",
        "        globals().setdefault('_SEEN', []).append(1)\n"
        "        case = case if len(globals()['_SEEN']) % 3 else __import__('dataclasses').replace(case, locale='en')\n"
        "        facts = [",
        "gave two different outcomes for one case",
        "steps",
    ),
    Broken(
        "step-takes-all",
        "a step takes anything for an answer",
        "    weak: Annotated[list[Point], Field(max_length=2)]\n",
        "    weak: Annotated[list[Point], Field(max_length=2)] = []\n",
        "step 'doubts': took '{}' for an answer",
        "steps",
    ),
    Broken(
        "steps-text",
        "what comes of the steps is text",
        "return self.drafts(case, every, findings)",
        'return "two points"',
        "drafts_of_steps() returned a str; return a list",
        "steps",
    ),
    Broken(
        "steps-miss",
        "a step that was left out is taken for answered",
        ' if "doubts" in answers else []',
        "",
        "KeyError: 'doubts' in drafts_of_steps()",
        "steps",
    ),
    Broken(
        "panel-raises",
        "what comes of the panel fails",
        "for model, said in answer.answers.items()",
        'for model, said in [("qwen", answer.answers["qwen"])]',
        "KeyError: 'qwen' in drafts_of_panel()",
        "panel",
    ),
    Broken(
        "panel-absent",
        "a member that did not answer is taken for one that did",
        "        if patient is None or not sections:",
        "        sections += [(model, answer.answers[model].points) for model in answer.absent]\n"
        "        if patient is None or not sections:",
        "in drafts_of_panel()",
        "panel",
    ),
    Broken(
        "panel-invalid",
        "the panel's draft is not valid FHIR",
        '"status": "preparation"',
        '"status": "agreed"',
        "draft 'points': Communication.status: code-invalid",
        "panel",
    ),
    Broken(
        "questions-undeclared",
        "it looks for what knowledge does not declare",
        'return {"advice":',
        'return {"guideline":',
        "questions() asks for 'guideline', which knowledge does not declare (it declares advice)",
        "knowledge",
    ),
    Broken(
        "questions-raise",
        "what is looked for fails on an empty record",
        '" ".join(display(r.get("code")) for r in _current(case))',
        'display(_current(case)[0].get("code"))',
        "IndexError: list index out of range in questions()",
        "knowledge",
    ),
)
