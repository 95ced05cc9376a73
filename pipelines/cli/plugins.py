"""`careloom plugins`: what is installed, from where, whether it runs, why not, and what it brings."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.configuration import configuration_if_any

if TYPE_CHECKING:
    from pipelines.config import Config
    from plugins.manager import Loaded, PluginInfo
    from plugins.scenario import Scenario

_NO_CONFIGURATION = "no configuration here: built-in plugins alone are enabled (name one with --config)"
_NO_LEDGER = "the ledger does not answer: whether work waits for scenarios that are gone is not known"


def plugins(
    config: Annotated[Path | None, typer.Option(help="careloom.toml; else CARELOOM_CONFIG, else the stack's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show every plugin that is installed or enabled: what it is of, what it brings, and why it does not run.

    Work that waits for a scenario which is no longer there is named: it is kept, and goes on when the plugin is back.
    Exit code 0 when nothing that is enabled is refused, 1 otherwise.

    Examples:

      careloom plugins

      careloom plugins --json
    """
    settings = configuration_if_any(config)
    loaded = _load(settings)
    waiting = _orphans(settings, {*loaded.scenarios, *loaded.disabled}) if settings else None
    if as_json:
        said = {"plugins": [_described(one, loaded) for one in loaded.plugins], "waiting_for_nobody": waiting}
        typer.echo(json.dumps(said, ensure_ascii=False))
    else:
        typer.echo("\n".join(_shown(loaded, settings, waiting)))
    if loaded.refused:
        raise typer.Exit(1)


def _load(settings: Config | None) -> Loaded:
    """Everything, knowledge sources included; a library of no stack is indexed in a folder that is gone afterwards."""
    import tempfile

    from plugins.hookspecs import Settings
    from plugins.manager import load

    with tempfile.TemporaryDirectory(prefix="careloom-plugins-") as folder:
        if settings is None:
            return load(settings=lambda plugin: Settings(Path(folder), "zh"))
        own, locale, state = settings.plugins.settings, settings.locale, settings.state_dir
        return load(
            settings.plugins.enabled,
            settings.plugins.disabled_scenarios,
            settings=lambda plugin: Settings(state, locale, own.get(plugin, {})),
        )


def _orphans(settings: Config, known: Collection[str]) -> dict[str, int] | None:
    """Scenario that nobody brings -> pieces of work that wait for it; None where the ledger does not answer."""
    from sqlalchemy.exc import SQLAlchemyError

    from pipelines.ledger import engine
    from pipelines.ledger.snapshot import open_work

    made = engine(settings.ledger.url.get_secret_value(), pool_size=1)
    waiting: dict[str, int] = {}
    try:
        for work in open_work(made):
            if work.scenario not in known:
                waiting[work.scenario] = waiting.get(work.scenario, 0) + work.items
    except SQLAlchemyError:
        return None
    finally:
        made.dispose()
    return waiting


def _described(one: PluginInfo, loaded: Loaded) -> dict[str, Any]:
    scenarios = [_facts(loaded.scenarios[id_]) for id_ in one.brings.get("scenarios", ()) if id_ in loaded.scenarios]
    return {**asdict(one), "brings": {k: list(v) for k, v in one.brings.items()}, "scenarios": scenarios}


def _facts(scenario: Scenario[Any]) -> Mapping[str, str]:
    return {
        "id": scenario.id,
        "version": scenario.version,
        "stage": scenario.stage.value,
        "risk": scenario.risk.value,
        "title": scenario.title.en,
    }


def _shown(loaded: Loaded, settings: Config | None, waiting: dict[str, int] | None) -> Iterator[str]:
    if settings is None:
        yield _NO_CONFIGURATION
    for one in loaded.plugins:
        of = f"{one.distribution} {one.version}".strip() or "not installed"
        state = "enabled" if one.enabled else "NOT ENABLED"
        yield f"{state:<12} {one.name}  ({of}{f', {one.module}' if one.module not in ('', one.name) else ''})"
        for what, ids in one.brings.items():
            for id_ in ids:
                yield f"{'':<12}   {what}: {_line(id_, loaded)}"
        if one.why_not:
            yield f"{'':<12}   {'but' if one.enabled else 'why'}: {one.why_not}"
    infos = {one.name for one in loaded.plugins}
    yield from (f"{'REFUSED':<12} {name}: {reason}" for name, reason in loaded.refused if name not in infos)
    if settings is not None and waiting is None:
        yield _NO_LEDGER
    for scenario, count in (waiting or {}).items():
        remedy = "install and enable its plugin"
        yield f"{'WAITING':<12} {count} pieces of work for {scenario}, which nobody brings: {remedy}"


def _line(id_: str, loaded: Loaded) -> str:
    scenario = loaded.scenarios.get(id_)
    if scenario is None:
        return id_
    return f"{id_} {scenario.version}, {scenario.stage.value}, risk {scenario.risk.value}: {scenario.title.en}"
