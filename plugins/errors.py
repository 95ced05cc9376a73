"""Everything that can be wrong with a plugin, or with what a model answered to one.

PluginError
├── PluginNotFound      no installed entry point has the name that the configuration enables
├── PluginBroken        the plugin could not be imported or registered, or misspells a hook
├── ScenarioRefused     one scenario breaks a rule of the scenario API; names the scenario, the rule and the remedy
│   └── DuplicateScenario   its id is taken
├── OfferRefused        a guard, knowledge source, model backend or counter breaks a rule of its hook
├── ModelFailed         raised by a model backend: no answer came; says whether another try may help
├── AnswerInvalid       a model's answer is not what was asked for; echoes nothing of the answer
└── NotConformant       the test kit found a scenario that does not keep its promises
"""

from __future__ import annotations

from typing import Literal

#: What a plugin's own code may raise without taking others down: `sys.exit()` in it ends no process of careloom.
#: KeyboardInterrupt is a person's and goes through.
FAULTS: tuple[type[BaseException], ...] = (Exception, SystemExit)


def told(error: BaseException) -> str:
    """Kind and message of what a plugin's code raised, with what to do where the kind alone says it."""
    remedy = "; a plugin must not end the process: leave sys.exit() out, or raise an error that says what is missing"
    return f"{type(error).__name__}: {error}{remedy if isinstance(error, SystemExit) else ''}"


class PluginError(Exception):
    """Root of this package's errors."""


class PluginNotFound(PluginError):
    """An enabled entry point is not installed."""


class PluginBroken(PluginError):
    """A plugin could not be loaded at all."""


class ScenarioRefused(PluginError):
    """A scenario breaks a rule of the scenario API; the message says which, where, and what to do."""


class DuplicateScenario(ScenarioRefused):
    """Two plugins bring a scenario with the same id."""


class OfferRefused(PluginError):
    """What a hook returned cannot be taken; the message says which rule it breaks, and what to do."""


class ModelFailed(PluginError):
    """A model backend got no answer. The message holds no text of the request or of the server's answer.

    Attributes:
        kind: "unavailable" (the event waits and is tried again), "timeout" (likewise), or "rejected" (this request
            will never be taken; after some tries it is parked).
        retry_after: seconds that the server asked to be left alone for, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: Literal["unavailable", "timeout", "rejected"] = "unavailable",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class AnswerInvalid(PluginError):
    """A model's answer is not strict JSON, or does not fit the scenario's output model.

    The message names the place in the schema and the kind of fault. It holds no text of the answer, which may repeat
    patient data.
    """


class NotConformant(PluginError, AssertionError):
    """A scenario fails the conformance kit (`plugins.testing`)."""
