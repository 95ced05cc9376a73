"""The registry of models in the configuration: what each is, what it costs, and who is asked for which scenario.

    [[models]]                                  # the first is asked where no route says otherwise
    name = "ward-llm"
    url = "http://gpu-host:8000/v1"
    version = "2026-10"
    registration_number = "..."                 # 备案号

    [[models]]
    name = "board"                              # several models, for scenarios that ask a panel
    kind = "panel"
    members = ["ward-llm", "second-llm"]

    [routing]
    in_visit = "ward-llm"                       # a stage
    "pre_visit.triage" = "board"                # a scenario goes before its stage

A single `[model]` is the same as a first entry of `[[models]]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr, model_validator

from pipelines.sections import Seconds, Section

PANEL = "panel"
Name = Annotated[str, Field(min_length=1, max_length=100)]
Price = Annotated[float, Field(ge=0)]


class Model(Section):
    """One model, how it is asked, and what must stand on each of its drafts.

    Attributes:
        name: how careloom calls it: in routes, switches, metrics and the Device of its drafts.
        kind: "openai" (vLLM and every OpenAI-compatible server), "kserve" (Open Inference Protocol v2), "batch" (vLLM's
            offline engine, for work that can wait), "panel" (several of the others), or a plugin's.
        url: of an OpenAI-compatible server, ending in /v1; of a KServe one without /v2; "batch" has none.
        served_as: how its server calls it, where that is not `name`.
        version: of the weights.
        registration_number: its registration (备案号) where it has one.
        intended_use, limits: in the maker's words; for people, in `careloom models` and on the Device of its drafts.
        card: address of its model card; there, too. Who changes one of the three has a new Device from then on.
        stand_in: true where no model answers but the test stand-in; every draft then says so.
        max_in_flight: requests at a time at most, in each process. Of a server that shows vLLM's own /metrics (kind
            "openai" alone) fewer where its queue stands; of every other it is a fixed cap: set what the server bears.
        timeout: seconds for one answer.
        attempts: tries within one task for an answer that fails by transport, 429 or 5xx.
        cost_per_1k_prompt_tokens, cost_per_1k_completion_tokens, cost_per_second: in `currency`; added up.
        currency: ISO 4217.
        members: of a panel, by name, in the order in which they are shown.
        options: for its kind alone.
    """

    name: Name
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")] = "openai"
    url: str = "http://127.0.0.1:8000/v1"
    served_as: str | None = None
    version: str = ""
    registration_number: str | None = None
    intended_use: str = ""
    limits: str = ""
    card: str | None = None
    api_key: SecretStr | None = None
    stand_in: bool = False
    max_in_flight: Annotated[int, Field(ge=1)] = 16
    timeout: Seconds = 120.0
    attempts: Annotated[int, Field(ge=1, le=5)] = 3
    cost_per_1k_prompt_tokens: Price = 0.0
    cost_per_1k_completion_tokens: Price = 0.0
    cost_per_second: Price = 0.0
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "CNY"
    members: tuple[Name, ...] = ()
    options: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def served_name(self) -> str:
        """How its server calls it."""
        return self.served_as or self.name

    @property
    def secret(self) -> str | None:
        """What its server wants as a bearer token."""
        return self.api_key.get_secret_value() if self.api_key else None

    def cost(self, prompt_tokens: int, completion_tokens: int, seconds: float) -> float:
        """What that much of it costs, in `currency`."""
        tokens = prompt_tokens * self.cost_per_1k_prompt_tokens + completion_tokens * self.cost_per_1k_completion_tokens
        return tokens / 1000 + seconds * self.cost_per_second

    @model_validator(mode="after")
    def _whole(self) -> Model:
        if self.kind == PANEL and len(set(self.members)) < 2:
            raise ValueError("a panel has at least two different members; name them in members")
        if self.kind != PANEL and self.members:
            raise ValueError('members are for kind = "panel"; set the kind, or leave members out')
        if self.kind != PANEL and not self.version:
            raise ValueError("version is missing: it stands on every draft; name the version of the weights")
        return self


class Registry:
    """The configured models, and which are asked for a scenario.

    Args:
        default: asked where no route says otherwise.
        others: the rest.
        routing: scenario id or stage -> name, or several: a panel asks them all, others the first that is not off.

    Raises:
        ValueError: two models of one name; a route or a panel names what is no model, or a panel in a panel.
    """

    def __init__(self, default: Model, others: tuple[Model, ...], routing: Mapping[str, str | tuple[str, ...]]) -> None:
        models = (default, *(model for model in others if model != default))
        self._models = {model.name: model for model in models}
        if len(self._models) != len(models):
            raise ValueError("two models have the same name; a name is an identity")
        self._default = default.name
        self._routing = {key: (to,) if isinstance(to, str) else tuple(to) for key, to in routing.items()}
        for panel in models:
            for member in panel.members:
                if self._known(member, f"the panel {panel.name!r}").kind == PANEL:
                    raise ValueError(f"the panel {panel.name!r} has the panel {member!r} in it; name its members")
        for key, names in self._routing.items():
            if not names:
                raise ValueError(f"routing.{key} names no model")
            for name in names:
                self._known(name, f"routing.{key}")

    @property
    def models(self) -> tuple[Model, ...]:
        """All that can be asked; panels are not among them, their members are."""
        return tuple(model for model in self._models.values() if model.kind != PANEL)

    @property
    def panels(self) -> tuple[Model, ...]:
        """Those that are several of the others."""
        return tuple(model for model in self._models.values() if model.kind == PANEL)

    def route(self, scenario: str) -> tuple[Model, ...]:
        """The models of a scenario, a panel's members in its place; by the scenario's id, else its stage.

        Args:
            scenario: id, "<stage>.<name>".
        """
        stage = scenario.partition(".")[0]
        names = self._routing.get(scenario) or self._routing.get(stage) or (self._default,)
        asked = (member for name in names for member in self._models[name].members or (name,))
        return tuple(self._models[name] for name in dict.fromkeys(asked))

    def _known(self, name: str, where: str) -> Model:
        if name not in self._models:
            raise ValueError(f"{where} names {name!r}, which is no model; there are {', '.join(self._models)}")
        return self._models[name]
