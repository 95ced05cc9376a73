"""Every hook a plugin can implement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from plugins.scenario import Scenario

hookspec = pluggy.HookspecMarker("careloom")
hookimpl = pluggy.HookimplMarker("careloom")


class ScenarioSpecs:
    """Hooks that bring scenarios."""

    @hookspec
    def careloom_scenarios(self) -> Iterable[Scenario[Any]]:
        """The scenarios of this plugin, as instances.

        Example:
            @hookimpl
            def careloom_scenarios():
                return [MyScenario()]
        """
        raise AssertionError("a specification is not called")
