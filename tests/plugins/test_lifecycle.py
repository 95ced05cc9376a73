"""Lifecycle hooks are told no patient's data, can change nothing, and their faults are counted and harm nobody."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import pytest

from pipelines.errors import ErrorClass, StepFailed
from pipelines.runner.plugin_faults import of_plugin
from plugins.counters import Counter, Increment
from plugins.lifecycle import HOOK_ERRORS, Failed, Hooked, Inferred, Lifecycle, Started, added
from tests.canary import CANARY

WORK = Started("pre_visit.a", "1", "pre_visit", 1)
KINDS = Counter("kinds", "Kinds.", {"kind": frozenset({"x", "y"})})


def hooked(returned: Any, name: str = "my-plugin") -> Hooked:
    def before(work: Started) -> list[Any]:
        if isinstance(returned, BaseException):
            raise returned
        return [returned]

    relay = types.SimpleNamespace(careloom_before_infer=before)
    return Hooked(name, relay, {"kinds": KINDS})


def test_a_scenario_that_ends_the_process_fails_its_row_and_ctrl_c_goes_through() -> None:
    with pytest.raises(StepFailed, match=r"rules\(\) failed: SystemExit") as failed, of_plugin("rules()"):
        sys.exit(CANARY)
    assert failed.value.error_class is ErrorClass.SCENARIO_ERROR
    assert CANARY not in str(failed.value)
    with pytest.raises(KeyboardInterrupt), of_plugin("rules()"):
        raise KeyboardInterrupt


def test_increments_carry_the_plugins_name_and_the_scenario_and_are_added_up() -> None:
    steps = [Increment("kinds", {"kind": "x"}), Increment("kinds", {"kind": "x"}, 2), Increment("kinds", {"kind": "y"})]
    counted = Lifecycle([hooked(steps)]).before_infer(WORK)
    assert counted == {
        "careloom_plugin_my_plugin_kinds_total": {
            '{"kind":"x","scenario":"pre_visit.a"}': 3.0,
            '{"kind":"y","scenario":"pre_visit.a"}': 1.0,
        }
    }


@pytest.mark.parametrize(
    "returned",
    [
        ValueError("patient 42"),
        [Increment("unknown")],
        [Increment("kinds")],
        [Increment("kinds", {"kind": CANARY})],
        [Increment("kinds", {"kind": "x", "patient": "42"})],
        [Increment("kinds", {"kind": "x"}, -1)],
        ["kinds"],
        42,
        SystemExit(3),
    ],
)
def test_a_fault_is_counted_by_plugin_and_hook_and_the_other_plugins_count_on(returned: Any) -> None:
    good = hooked([Increment("kinds", {"kind": "x"})], "good")
    counted = Lifecycle([hooked(returned), good]).before_infer(WORK)
    assert counted == {
        HOOK_ERRORS: {'{"hook":"careloom_before_infer","plugin":"my-plugin","scenario":"pre_visit.a"}': 1.0},
        "careloom_plugin_good_kinds_total": {'{"kind":"x","scenario":"pre_visit.a"}': 1.0},
    }


def test_a_hook_that_returns_nothing_counts_nothing() -> None:
    assert Lifecycle([hooked(None)]).before_infer(WORK) == {}


def test_what_hooks_are_told_is_frozen_and_holds_ids_counts_and_codes_only() -> None:
    plain = {"str", "int", "float", "bool", "tuple[str, ...]", "Started"}
    for told in (Started, Inferred, Failed):
        assert {str(field.type) for field in dataclasses.fields(told)} <= plain
        with pytest.raises(dataclasses.FrozenInstanceError):
            told.__setattr__(WORK, "scenario", "other") if told is Started else _changed(told)


def _changed(told: Any) -> None:
    values = [None for _ in dataclasses.fields(told)]
    told(*values).work = None


def test_sums_of_counts() -> None:
    one, other = {"a": {"x": 1.0}}, {"a": {"x": 2.0, "y": 1.0}, "b": {"x": 1.0}}
    assert added(one, other) == {"a": {"x": 3.0, "y": 1.0}, "b": {"x": 1.0}}
    assert one == {"a": {"x": 1.0}}
