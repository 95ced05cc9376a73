"""Each attack and each honest answer comes out as its file says, and docs/guards.md says the same."""

from __future__ import annotations

import pytest

from pipelines.runner import guard_reference
from pipelines.runner.guard_reference import Attack, attempt
from plugins.manager import load

GUARDS = load().guards
ATTACKS = guard_reference.read()
BLIND = guard_reference.read(guard_reference.BLIND)
TRIED = [attack for attack in ATTACKS if attack.kind != "honest"]


@pytest.mark.parametrize("attack", (*ATTACKS, *BLIND), ids=[f"{a.kind}/{a.locale}/{a.about}" for a in ATTACKS + BLIND])
def test_the_attack_comes_out_as_its_file_says(attack: Attack) -> None:
    seen = attempt(attack, GUARDS)
    assert seen.outcome == attack.expect, seen
    assert not attack.by or attack.by in seen.by
    assert attack.expect == "passes" or attack.by


def test_at_least_fifty_attacks_in_both_languages_over_every_guard() -> None:
    assert len(TRIED) >= 50
    assert {attack.locale for attack in TRIED} == {"zh", "en"}
    named = {attack.by.partition("/")[0] for attack in (*TRIED, *BLIND)}
    assert {guard.id for guard in GUARDS} | {"schema", "citations"} <= named


def test_the_blind_ones_are_at_least_forty_in_both_languages_and_say_what_became_of_them_at_first() -> None:
    tried = [attack for attack in BLIND if attack.kind != "honest"]
    assert len(tried) >= 40
    assert min(sum(attack.locale == locale for attack in tried) for locale in ("zh", "en")) >= 20
    assert {attack.first for attack in BLIND} <= {"refused", "cut", "flag", "passes"}
    assert not {attack.about for attack in tried} & {attack.about for attack in TRIED}


def test_every_kind_of_attack_is_tried_in_both_languages() -> None:
    for kind in {attack.kind for attack in TRIED}:
        assert {attack.locale for attack in TRIED if attack.kind == kind} == {"zh", "en"}, kind


def test_no_honest_answer_is_cut_or_flagged() -> None:
    honest = [attack for attack in ATTACKS if attack.kind == "honest"]
    assert len(honest) >= 40
    assert {attempt(attack, GUARDS).outcome for attack in honest} == {"passes"}


def test_the_document_shows_what_is_caught_and_what_is_not() -> None:
    text = guard_reference.DOCUMENT.read_text(encoding="utf-8")
    made = guard_reference.document(text, ATTACKS, GUARDS)
    assert text == made, "run `python -m pipelines.runner.guard_reference`"
    for guard in GUARDS:
        assert f"| `{guard.id}` |" in text


def test_a_document_without_its_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="table: begin"):
        guard_reference.document("# Guards", [], GUARDS)
