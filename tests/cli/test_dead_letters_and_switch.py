"""`careloom dead-letters` and `careloom switch` on a real ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine
from typer.testing import CliRunner

from pipelines.cli import dead_letters, switch
from pipelines.errors import ErrorClass, StepFailed
from pipelines.ledger import EventRow, Incoming, Ledger, Match, Position, State
from tests.least_config import write_least_config

NOTE = "in_visit.note"


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    return Ledger(ledger_engine, max_attempts=1, backoff=1e-9)


@pytest.fixture
def careloom(ledger_url: str, tmp_path: Path) -> Callable[..., Result]:
    """Calls a command: `careloom(switch.app, "off", "everything", "--why", "x")`."""
    file = write_least_config(tmp_path, ledger={"url": ledger_url})

    def call(app: object, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(file)])  # type: ignore[arg-type]

    return call


def park(ledger: Ledger, offsets: Sequence[int]) -> None:
    now = datetime.now(UTC)
    for offset in offsets:
        position = Position("t", 0, offset)
        event = EventRow(f"e{offset}", "h", "R4", "Encounter", f"e{offset}", "1", None, "written", f"p{offset}",
                         position, now, now)  # fmt: skip
        ledger.record([Incoming(position, event, (Match(NOTE, "1", "in_visit"),))])
        run = ledger.take_run(NOTE, 10)
        assert run
        for item in ledger.claim(run.run_id, 60):
            ledger.failed(item, StepFailed(ErrorClass.PAYLOAD_INVALID, "the event is no Encounter"))


def test_dead_letters_are_listed_with_their_class_and_reason(careloom, ledger: Ledger):
    assert "no dead letters" in careloom(dead_letters.app, "list").output
    park(ledger, [0, 1])
    assert NOTE in careloom(dead_letters.app, "list").output
    lines = [json.loads(line) for line in careloom(dead_letters.app, "list", "--json").output.splitlines()]
    assert [(line["error_class"], line["error"]) for line in lines] == [
        ("payload_invalid", "the event is no Encounter")
    ] * 2


def test_one_is_tried_again_and_another_given_up(careloom, ledger: Ledger):
    park(ledger, [0, 1])
    first, second = (letter.id for letter in ledger.dead_letters())
    assert careloom(dead_letters.app, "retry", str(first), "--why", "repaired").exit_code == 0
    assert careloom(dead_letters.app, "discard", str(second), "--why", "not needed").exit_code == 0
    assert ledger.account().work == {State.WAITING: 1, State.DISCARDED: 1}
    assert ledger.account().unaccounted == 0


def test_what_is_no_dead_letter_is_refused_with_the_remedy(careloom):
    result = careloom(dead_letters.app, "retry", "77", "--why", "x")
    assert result.exit_code == 1
    assert "`careloom dead-letters list` shows them" in str(result.exception)


@pytest.mark.parametrize("what", [("everything",), ("scenario", "in_visit.admission_note"), ("model", "m")])
def test_what_is_switched_off_is_listed_until_it_is_on_again(careloom, ledger: Ledger, what: tuple[str, ...]):
    kind, name = (*what, "")[:2]
    assert careloom(switch.app, "off", *what, "--why", "a drill", "--by", "dr-wu").exit_code == 0
    assert ledger.is_off(kind, name)
    listed = careloom(switch.app, "list").output
    assert kind in listed and "dr-wu" in listed and "a drill" in listed
    assert careloom(switch.app, "on", *what).exit_code == 0
    assert not ledger.is_off(kind, name)
    assert "was not off" in careloom(switch.app, "on", *what).output


def test_who_turned_what_and_why_is_told_also_of_what_is_on_again(careloom, ledger: Ledger):
    assert careloom(switch.app, "history").output.strip() == "no switch was ever turned"
    careloom(switch.app, "off", "everything", "--why", "a drill", "--by", "dr-wu")
    careloom(switch.app, "on", "everything", "--why", "it is over", "--by", "dr-li")
    careloom(switch.app, "on", "everything", "--by", "nobody")  # it was not off: nothing was turned
    told = [json.loads(line) for line in careloom(switch.app, "history", "--json").output.splitlines()]
    assert [(one["off"], one["by"], one["why"]) for one in told] == [
        (False, "dr-li", "it is over"),
        (True, "dr-wu", "a drill"),
    ]
    shown = careloom(switch.app, "history", "--limit", "1").output
    assert "dr-li" in shown and "dr-wu" not in shown


@pytest.mark.parametrize("wrong", [("everything", "x"), ("scenario",), ("model",)])
def test_a_switch_without_its_name_or_with_one_too_many_is_refused(careloom, ledger: Ledger, wrong: tuple[str, ...]):
    assert careloom(switch.app, "off", *wrong, "--why", "x").exit_code == 2
    assert ledger.switched_off() == []


@pytest.mark.parametrize("wrong", [("scenario", "in_visit.admision_note"), ("model", "n")])
def test_a_name_that_would_stop_nothing_is_refused_and_the_right_ones_are_told(
    careloom, ledger: Ledger, wrong: tuple[str, ...]
):
    refused = careloom(switch.app, "off", *wrong, "--why", "x")
    assert refused.exit_code == 2
    assert {"scenario": "in_visit.admission_note", "model": "m"}[wrong[0]] in refused.output
    assert ledger.switched_off() == []


def test_a_reason_is_needed(careloom, ledger: Ledger):
    assert careloom(switch.app, "off", "everything").exit_code == 2
    assert ledger.switched_off() == []


def test_without_a_configuration_or_a_ledger_the_remedy_is_named(tmp_path: Path):
    missing = CliRunner().invoke(switch.app, ["list", "--config", str(tmp_path / "none.toml")])
    assert missing.exit_code == 1
    assert "not found" in missing.output
