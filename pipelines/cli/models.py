"""`careloom models`: what each model is and is not for, what it costs, who asks it, and whether it is off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.configuration import configuration

if TYPE_CHECKING:
    from sqlalchemy import Row

    from pipelines.config import Config
    from pipelines.models.settings import Model, Registry
    from plugins.scenario import Scenario

_NO_LEDGER = "the ledger does not answer: what is switched off is not known"
_NOT_SAID = "not said; write it into [[models]]"


@dataclass(frozen=True, slots=True)
class Shown:
    """One model.

    Attributes:
        name, kind, version, registration_number, intended_use, limits, card, stand_in: as configured.
        members: of a panel.
        price: amount by what it is for; empty where none is given.
        currency: of it.
        scenarios: that ask it.
        in_place_of: scenarios that ask it while those before it in their route are switched off.
        off: who has switched it off, why and since when; None where it is on, or nobody knows.
    """

    name: str
    kind: str
    version: str
    registration_number: str | None
    intended_use: str
    limits: str
    card: str | None
    stand_in: bool
    members: tuple[str, ...]
    price: Mapping[str, float]
    currency: str
    scenarios: tuple[str, ...]
    in_place_of: tuple[str, ...]
    off: Mapping[str, str] | None


def models(
    config: Annotated[Path | None, typer.Option(help="careloom.toml; else CARELOOM_CONFIG, else the stack's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show each configured model: intended use, limits, card, registration, price, who asks it, and switches.

    The same text stands on the Device of its drafts. No model is asked.

    Examples:

      careloom models

      careloom models --json | jq '.models[] | {name, limits}'
    """
    settings = configuration(config)
    switches = _switched_off(settings)
    shown = tuple(_all(settings.registry, _scenarios(settings), switches or ()))
    if as_json:
        said = {"models": [asdict(one) for one in shown], "switches_known": switches is not None}
        typer.echo(json.dumps(said, ensure_ascii=False))
        return
    typer.echo("\n\n".join("\n".join(_lines(one)) for one in shown))
    if switches is None:
        typer.echo(f"\n{_NO_LEDGER}")


def _scenarios(settings: Config) -> tuple[Scenario[Any], ...]:
    from plugins.manager import load

    return tuple(load(settings.plugins.enabled, settings.plugins.disabled_scenarios).scenarios.values())


def _switched_off(settings: Config) -> tuple[Row[Any], ...] | None:
    """What is off; None where the ledger does not answer."""
    from sqlalchemy.exc import SQLAlchemyError

    from pipelines.ledger import Ledger, engine

    made = engine(settings.ledger.url.get_secret_value(), pool_size=1)
    try:
        return tuple(Ledger(made).switched_off())
    except SQLAlchemyError:
        return None
    finally:
        made.dispose()


def _all(registry: Registry, scenarios: Iterable[Scenario[Any]], switches: Iterable[Row[Any]]) -> Iterator[Shown]:
    asked: dict[str, list[str]] = {}
    instead: dict[str, list[str]] = {}
    for scenario in scenarios:
        first, *others = registry.route(scenario.id)
        asked.setdefault(first.name, []).append(scenario.id)
        for model in others:
            (asked if scenario.panel else instead).setdefault(model.name, []).append(scenario.id)
    off = {
        switch.name: {"by": switch.by, "why": switch.why, "since": switch.since.isoformat()}
        for switch in switches
        if switch.kind == "model"
    }
    for model in (*registry.models, *registry.panels):
        yield _shown(model, asked.get(model.name, ()), instead.get(model.name, ()), off.get(model.name))


def _shown(model: Model, asked: Iterable[str], instead: Iterable[str], off: Mapping[str, str] | None) -> Shown:
    price = {
        "1000 prompt tokens": model.cost_per_1k_prompt_tokens,
        "1000 completion tokens": model.cost_per_1k_completion_tokens,
        "second": model.cost_per_second,
    }
    return Shown(
        name=model.name,
        kind=model.kind,
        version=model.version,
        registration_number=model.registration_number,
        intended_use=model.intended_use,
        limits=model.limits,
        card=model.card,
        stand_in=model.stand_in,
        members=model.members,
        price={what: amount for what, amount in price.items() if amount},
        currency=model.currency,
        scenarios=tuple(asked),
        in_place_of=tuple(instead),
        off=off,
    )


def _lines(one: Shown) -> Iterator[str]:
    yield f"{one.name} {one.version}".rstrip() + f"  ({one.kind})" + ("  STAND-IN, not a model" if one.stand_in else "")
    if one.off is not None:
        yield f"  SWITCHED OFF   by {one.off['by']} since {one.off['since']}: {one.off['why']}"
    if one.members:
        yield f"  members        {', '.join(one.members)}"
        return
    yield f"  registration   {one.registration_number or 'none'}"
    yield f"  intended use   {one.intended_use or _NOT_SAID}"
    yield f"  limits         {one.limits or _NOT_SAID}"
    yield f"  card           {one.card or _NOT_SAID}"
    price = ", ".join(f"{amount:g} {one.currency} for a {what}" for what, amount in one.price.items())
    yield f"  price          {price.replace('for a 1000', 'for 1000') or 'none given'}"
    yield f"  asked by       {', '.join(one.scenarios) or 'no scenario'}"
    if one.in_place_of:
        yield f"  stands in for  those before it, when they are off, in {', '.join(one.in_place_of)}"
