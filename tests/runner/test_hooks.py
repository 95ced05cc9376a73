"""What a plugin's hooks count comes through the ledger once, and a hook that fails harms no row."""

from __future__ import annotations

import types
from typing import Any

from pipelines.ledger.fold import fold_all
from pipelines.runner.batch import Outcome
from plugins.counters import Counter, Increment
from plugins.lifecycle import Hooked
from tests.canary import CANARY
from tests.runner.seen import samples


def counting(**hooks: Any) -> Hooked:
    silent = {name: lambda **told: [] for name in ("before_infer", "after_infer", "on_failure")}
    relay = types.SimpleNamespace(**{f"careloom_{name}": hook for name, hook in (silent | hooks).items()})
    return Hooked("house", relay, {"tries": Counter("tries", "Tries."), "drafts": Counter("drafts", "Drafts.")})


def test_what_hooks_count_comes_through_the_ledger_once_with_failed_tries(house: Any) -> None:
    house.hooks = (
        counting(
            before_infer=lambda work: [[Increment("tries")]],
            after_infer=lambda inferred: [[Increment("drafts", by=inferred.drafts.count("RiskAssessment"))]],
            on_failure=lambda failed: [[Increment("tries", by=0 if failed.transient else 10)]],
        ),
    )
    house.enter(80)
    house.model.says = lambda _: "no JSON"
    house.carry()
    house.model.says = lambda _: '{"reasons": []}'
    house.wake()
    house.carry()
    fold_all(house.engine)
    assert samples(house, "careloom_plugin_house_tries_total") == {'{"scenario": "in_visit.watch"}': 12.0}
    assert samples(house, "careloom_plugin_house_drafts_total") == {'{"scenario": "in_visit.watch"}': 1.0}


def test_a_hook_that_fails_harms_no_row_and_is_counted(house: Any) -> None:
    def fails(**told: Any) -> Any:
        raise ValueError(CANARY)

    house.hooks = (counting(before_infer=fails, after_infer=fails),)
    house.enter(80)
    summary = house.carry()
    assert summary.outcomes == {Outcome.WRITTEN: 1}
    assert house.rows()[0].state == "written"
    assert sum(samples(house, "careloom_plugin_hook_errors_total").values()) == 2.0
