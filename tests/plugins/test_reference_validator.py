"""The field's reference validator finds no error in any draft of a golden case, also when the model answers noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.provenance import Author, device
from plugins import golden
from plugins.manager import load
from plugins.scenario import Draft
from plugins.testing import contradictory, empty, huge, injected, nobody

FOLDER = Path(__file__).parent / "golden"


def drafts() -> Iterator[Draft]:
    for scenario in load().scenarios.values():
        cases = golden.read(FOLDER / scenario.id.split(".")[1])
        for case in cases:
            yield from golden.check(scenario, case).drafts
            yield from golden.run(scenario, case.case).drafts
        for distort in (empty, nobody, huge, contradictory, injected):
            yield from golden.run(scenario, distort(cases[-1].case)).drafts


@pytest.mark.long  # CI holds the demo's drafts to the validator
@pytest.mark.stack
def test_every_draft_of_every_golden_case_passes(reference_errors: Any) -> None:
    resources = [draft.resource for draft in drafts()]
    assert len(resources) > 200
    assert reference_errors(resources) == []


@pytest.mark.long
@pytest.mark.stack
def test_the_device_of_a_model_of_which_its_maker_says_all_passes(reference_errors: Any) -> None:
    author = Author(
        "model", "m", "1", "备案-1", False, "Drafts for a clinician", "a: no children\nb: none", "https://m/card"
    )
    assert reference_errors([device(author), device(replace(author, stand_in=True))]) == []
