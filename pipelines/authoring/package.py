"""A new plugin as a package of its own: one scenario that works, golden cases, and a test that passes."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
from importlib import resources
from pathlib import Path

from pipelines.authoring.first_cases import first_cases, trigger
from pipelines.errors import ConfigError
from plugins.manager import load
from plugins.scenario import Stage

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MOST = 48
#: Stage -> (statuses that start the scenario, why).
_STARTS = {
    Stage.PRE_VISIT: (("pending", "booked", "arrived"), "somebody is coming"),
    Stage.IN_VISIT: (("in-progress",), "a visit has begun"),
    Stage.POST_VISIT: (("finished",), "a visit is over"),
}


def write_package(stage: str, name: str, into: Path) -> Path:
    """Write the package into a new folder `into/name` and return it.

    Args:
        stage: of care, as in `plugins.scenario.Stage`.
        name: of the distribution: lower-case words with hyphens; the scenario is called `<stage>.<name>` with `_`.
        into: a folder that is there.

    Raises:
        ConfigError: no such stage, a name that cannot be used or is taken, or the folder is there already.
    """
    known = _stage(stage)
    module = _module(name, known)
    folder = into / name
    if not into.is_dir():
        raise ConfigError(f"--into {into}: no such folder; make it, or name another one")
    if folder.exists():
        raise ConfigError(f"{folder} is there already; choose another name, or another folder with --into")
    for path, text in _files(known, name, module).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def _stage(stage: str) -> Stage:
    try:
        return Stage(stage.replace("-", "_"))
    except ValueError:
        raise ConfigError(f"no stage of care is called {stage!r}; there are {', '.join(Stage)}") from None


def _module(name: str, stage: Stage) -> str:
    """The name of the package's module."""
    if not _NAME.fullmatch(name) or len(name) > _MOST:
        raise ConfigError(
            f"{name!r} cannot be the name: lower-case words with hyphens, at most {_MOST} characters, as in my-scenario"
        )
    module = name.replace("-", "_")
    if f"{stage}.{module}" in load().scenarios:
        raise ConfigError(f"careloom has a scenario {stage}.{module}; choose another name")
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise ConfigError(f"Python has a module {module!r} here already; choose another name, as in my-{name}")
    return module


def _files(stage: Stage, name: str, module: str) -> dict[str, str]:
    statuses, why = _STARTS[stage]
    values = {
        "name": name,
        "module": module,
        "class": "".join(word.capitalize() for word in name.split("-")),
        "id": f"{stage}.{module}",
        "stage": stage.value,
        "STAGE": stage.name,
        "trigger": trigger(stage, None)["resourceType"],
        "statuses": "".join(f'"{status}", ' for status in statuses).rstrip(" " if len(statuses) == 1 else ", "),
        "why": why,
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}/__init__.py": "__init__.py",
        f"{module}/scenario.py": "scenario.py",
        f"tests/test_{module}.py": "test_scenario.py",
    }
    texts = {path: _filled(template, values) for path, template in files.items()}
    cases = {f"tests/golden/{stem}.json": _json(case) for stem, case in first_cases(stage)}
    return texts | cases


def _filled(template: str, values: dict[str, str]) -> str:
    text = (resources.files("pipelines.authoring") / "template" / f"{template}.txt").read_text(encoding="utf-8")
    return re.sub(r"@@(\w+)@@", lambda match: values[match[1]], text)


def _json(case: object) -> str:
    return json.dumps(case, ensure_ascii=False, indent=1) + "\n"
