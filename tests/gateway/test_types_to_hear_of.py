"""The gateway subscribes to Task whatever scenarios there are: by a Task a person decides on their drafts."""

from __future__ import annotations

import pytest

from pipelines.config import Config, Plugins
from pipelines.gateway.__main__ import types_to_hear_of


@pytest.mark.parametrize("disabled", [(), ("post_visit.adherence_risk",)])
def test_tasks_are_heard_of_whether_or_not_a_scenario_waits_for_them(
    make_config: object, disabled: tuple[str, ...]
) -> None:
    config: Config = make_config()  # type: ignore[operator]
    found = types_to_hear_of(config.model_copy(update={"plugins": Plugins(disabled_scenarios=disabled)}))
    assert "Task" in found
    assert "Encounter" in found
    assert list(found) == sorted(set(found))
