"""What an author means: a folder with a package, one file, an installed plugin, or a scenario by its id."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.errors import ConfigError
from plugins import manager
from plugins.errors import FAULTS, PluginBroken, PluginError, told
from plugins.golden import GoldenCase, read
from plugins.offers import PROJECT, offers
from plugins.scenario import Scenario

#: Where golden cases of built-in scenarios are, in a clone of careloom.
_BUILT_IN_CASES = Path(__file__).parents[2] / "tests" / "plugins" / "golden"


@dataclass(frozen=True, slots=True)
class Target:
    """One plugin, asked for its scenarios whether or not the configuration enables it.

    Attributes:
        name: of the entry point, the file, or the built-in module.
        scenarios: that may be loaded.
        refused: why the plugin, or something of it, may not be.
    """

    name: str
    scenarios: tuple[Scenario[Any], ...]
    refused: tuple[str, ...] = ()


def find(what: str) -> list[Target]:
    """The plugins that `what` means: a folder with pyproject.toml, a .py file, the name of a distribution, of an entry
    point or of a module, or a scenario's id.

    Raises:
        ConfigError: it means nothing that is here; says what is.
    """
    path = Path(what)
    if path.is_dir():
        return [_target(name, module) for name, module in _of_folder(path)]
    if path.suffix == ".py":
        return [_target(path.stem, str(path))]
    points = [p for p in entry_points(group=PROJECT) if what in (p.name, p.dist.name if p.dist else "")]
    if points:
        return [_target(point.name, point.value) for point in points]
    found = [_only(target, what) for target in installed() if any(s.id == what for s in target.scenarios)]
    if found:
        return found
    if what in manager.BUILT_IN:
        return [_target(what, what)]
    raise ConfigError(
        f"{what!r} is no folder, no .py file, no installed plugin and no scenario; there are the scenarios "
        f"{', '.join(s.id for target in installed() for s in target.scenarios)} (`careloom plugins` shows plugins)"
    )


def installed() -> Iterator[Target]:
    """Every built-in and every installed plugin that brings scenarios."""
    modules = {name: name for name in manager.BUILT_IN} | {p.name: p.value for p in entry_points(group=PROJECT)}
    for name, module in modules.items():
        target = _target(name, module)
        if target.scenarios:
            yield target


def golden_cases(scenario: Scenario[Any], folder: Path | None = None) -> tuple[GoldenCase, ...]:
    """A scenario's golden cases: of `folder`, else of `golden/` or `tests/golden/` beside its package.

    Raises:
        ConfigError: `folder` is none, or one of its cases cannot be read.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--golden {folder}: no such folder")
    name = scenario.id.partition(".")[2]
    for place in (folder,) if folder is not None else _places(scenario):
        for each in (place / name, place):
            if each.is_dir() and any(each.glob("*.json")):
                return _read(each)
    return ()


def _read(folder: Path) -> tuple[GoldenCase, ...]:
    try:
        return tuple(read(folder))
    except (ValueError, KeyError, TypeError, PluginError) as error:
        raise ConfigError(f"{folder}: a golden case cannot be read: {type(error).__name__}: {error}") from None


def _places(scenario: Scenario[Any]) -> Iterable[Path]:
    if type(scenario).__module__ in manager.BUILT_IN:
        return (_BUILT_IN_CASES,)
    file = Path(inspect.getfile(type(scenario))).resolve()
    return [up / tail for up in file.parents[:3] for tail in ("golden", "tests/golden")]


def _only(target: Target, id_: str) -> Target:
    return Target(target.name, tuple(s for s in target.scenarios if s.id == id_), target.refused)


def _of_folder(folder: Path) -> list[tuple[str, str]]:
    """(entry point, module) of a package that need not be installed; its folder joins the path.

    Raises:
        ConfigError: there is no pyproject.toml, or it names no plugin.
    """
    file = folder / "pyproject.toml"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder}: there is no pyproject.toml; name the package's own folder, or `careloom new` one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    named = data.get("project", {}).get("entry-points", {}).get(PROJECT, {})
    if not named:
        raise ConfigError(
            f'{file}: no plugin is named; add [project.entry-points.{PROJECT}] with my_name = "my.module"'
        )
    for place in (folder / "src", folder):
        if str(place.resolve()) not in sys.path:
            sys.path.insert(0, str(place.resolve()))
    return list(named.items())


def _target(name: str, module: str) -> Target:
    try:
        brought = offers(name, _imported(module), None)
    except PluginError as error:
        return Target(name, (), (str(error),))
    return Target(name, brought.scenarios, brought.refused)


def _imported(module: str) -> object:
    """The plugin object.

    Raises:
        PluginBroken: importing it failed.
    """
    try:
        if module.endswith(".py"):
            return _of_file(Path(module))
        name, _, attribute = module.partition(":")
        plugin = importlib.import_module(name)
        return getattr(plugin, attribute) if attribute else plugin
    except FAULTS as error:
        raise PluginBroken(f"importing it failed with {told(error)}; repair or disable it") from error


def _of_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.exists():
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
