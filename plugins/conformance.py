"""The conformance kit as a list of checks, each with what failed, where, and what to do: for `careloom check`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugins.errors import FAULTS, PluginError
from plugins.golden import GoldenCase
from plugins.scenario import Scenario
from plugins.testing import ScenarioConformance

#: What to do where a check of the kit fails and its message does not say.
REMEDIES = {
    "it_may_be_loaded": "correct the class attribute that the message names",
    "it_asks_for_no_more_than_a_hospital_and_a_model_can_give": "lower the number: ask for the least that serves",
    "it_imports_nothing_that_does_io_or_tells_the_time": "leave the import out; the runner does the I/O",
    "it_comes_to_its_end_in_every_case": "correct the method that is named; docs/plugins.md says what each gives",
    "the_same_case_gives_the_same_drafts_and_is_not_changed": "use case.now for the time, and copy before you change",
    "it_reads_no_clock_no_chance_no_file_and_no_network": "use case.now; ask for data in record or knowledge",
    "it_keeps_nothing_from_one_case_for_the_next": "keep nothing on the class or in the module; return new values",
    "golden_cases_come_out_as_they_are_written": "correct the scenario, or what the case expects",
    "each_step_is_asked_in_some_case": "write a golden case with answers, which plugins/golden.py shows",
    "the_instruction_is_short_static_and_in_both_languages": "write it as one Text; put what varies into the facts",
    "text_of_the_record_never_leaves_its_fence": "put text of the record into facts, never into the instruction",
    "every_draft_is_valid_and_names_only_what_the_case_holds": "correct the draft that is named",
    "red_flags_are_raised_without_any_answer": "correct rules() or rule_drafts(); they see no answer",
    "garbage_of_a_model_is_refused_without_being_repeated": "give the output model fields that must be there",
}
_NO_CASES = (
    "there is no golden case",
    "write one into tests/golden (plugins/golden.py shows the keys), or name its folder with --golden",
)
_ONE_LANGUAGE = ("all golden cases are in one language", "write at least one in zh and one in en")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one check.

    Attributes:
        scenario: id; of what could not be loaded, the plugin's name.
        check: what must be true, in words.
        ok: whether it is.
        what: what is wrong.
        where: the case that shows it, where one does.
        remedy: what to do.
    """

    scenario: str
    check: str
    ok: bool
    what: str = ""
    where: str = ""
    remedy: str = ""


def conformance(scenario: Scenario[Any], golden: Sequence[GoldenCase]) -> Iterator[Checked]:
    """Hold a scenario to the whole kit, one check after the other.

    Args:
        golden: its cases; without any only what needs none is checked.
    """
    id_ = str(getattr(scenario, "id", type(scenario).__name__))
    yield _cases(id_, golden)
    attributes = {"scenario": scenario, "cases": tuple(each.case for each in golden), "golden": tuple(golden)}
    for test in (name for name in vars(ScenarioConformance) if name.startswith("test_")):
        kit = type("Kit", (ScenarioConformance,), attributes)()
        if golden or test in ("test_it_may_be_loaded", "test_it_imports_nothing_that_does_io_or_tells_the_time"):
            yield _checked(id_, test.removeprefix("test_"), kit, test)


def _cases(id_: str, golden: Sequence[GoldenCase]) -> Checked:
    check = "it has golden cases in both languages"
    if not golden:
        return Checked(id_, check, False, _NO_CASES[0], "", _NO_CASES[1])
    if {each.case.locale for each in golden} != {"zh", "en"}:
        return Checked(id_, check, False, _ONE_LANGUAGE[0], "", _ONE_LANGUAGE[1])
    return Checked(id_, check, True)


def _checked(id_: str, rule: str, kit: Any, test: str) -> Checked:
    words = rule.replace("_", " ")
    try:
        getattr(kit, test)()
    except PluginError as error:
        return Checked(id_, words, False, str(error).removeprefix(f"{id_}: "), kit.at, REMEDIES[rule])
    except FAULTS as error:  # whatever a scenario raises is what its author wants to be shown
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        what = f"{type(error).__name__}: {error}{notes} ({_place(error)})"
        return Checked(id_, words, False, what, kit.at, REMEDIES[rule])
    return Checked(id_, words, True)


def _place(error: BaseException) -> str:
    """Where in the scenario's own code it happened: the last frame that is not careloom's."""
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(__file__).parent
    own = [frame for frame in frames if Path(frame.filename).parent != here] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"
