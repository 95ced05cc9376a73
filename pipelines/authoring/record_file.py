"""A patient in a file: a FHIR Bundle, one resource, a golden case, or one of the demo's patients by name."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.demo.hospital import patients
from pipelines.demo.journeys import journey
from pipelines.errors import ConfigError
from pipelines.runner.context import parse_json
from plugins.errors import PluginError
from plugins.golden import GoldenCase, read_case
from plugins.scenario import FIRST, Locale, Resource

_URN = re.compile(r"urn:uuid:[0-9A-Fa-f-]+")


@dataclass(frozen=True, slots=True)
class PatientFile:
    """What a file holds.

    Attributes:
        name: for people.
        resources: of the record; those of the demo's journey are among them.
        golden: instead of `resources`, where the file is a golden case.
    """

    name: str
    resources: Sequence[Resource]
    golden: GoldenCase | None = None


def demo_names() -> list[str]:
    """The demo's patients."""
    folder = resources.files("pipelines.demo") / "patients"
    names = sorted(file.name.removesuffix(".json.gz") for file in folder.iterdir() if file.name.endswith(".json.gz"))
    return [name for name in names if name != "hospital"]


def read_patient(what: str, locale: Locale) -> PatientFile:
    """The patient that `what` means: a file, also gzipped, or a name of `demo_names()`.

    Args:
        locale: of what the demo's patients complain of.

    Raises:
        ConfigError: it is neither, or the file holds no FHIR JSON.
    """
    path = Path(what)
    if path.is_file():
        return _of_file(path)
    names = demo_names()
    if what in names:
        number = names.index(what)
        person = patients()[number]
        steps = journey(person.id, person.problem, number, locale)
        happened = {step.path: step.resource for step in steps if step.version == 1}
        later = [step.resource for step in steps if step.version > 1]
        return PatientFile(what, [*_resources(parse_json(person.bundle), what), *happened.values(), *later])
    raise ConfigError(f"--patient {what}: no such file, and none of the demo's patients: {', '.join(names)}")


def read_resource(path: Path) -> dict[str, Any]:
    """One resource of a file.

    Raises:
        ConfigError: there is none.
    """
    data = _json(path)
    if not isinstance(data.get("resourceType"), str) or data["resourceType"] == "Bundle":
        raise ConfigError(f"{path}: one FHIR resource is wanted, as JSON, with its resourceType")
    return data


def _of_file(path: Path) -> PatientFile:
    data = _json(path)
    if "trigger" in data and "expect" in data:
        try:
            return PatientFile(path.name, (), read_case(path))
        except (PluginError, KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"{path}: a golden case that cannot be read: {type(error).__name__}: {error}") from None
    return PatientFile(path.name, _resources(data, path.name))


def _json(path: Path) -> dict[str, Any]:
    try:
        body = path.read_bytes()
        data = parse_json(gzip.decompress(body) if path.suffix == ".gz" else body)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None
    if data is None:
        raise ConfigError(f"{path}: no JSON object; give a FHIR Bundle, a resource, or a golden case")
    return data


def _resources(data: Mapping[str, Any] | None, name: str) -> list[Resource]:
    """The Bundle's resources, each with an id, and references that name each other by it."""
    if data is None or "resourceType" not in data:
        raise ConfigError(f"{name}: no resourceType; give a FHIR Bundle, a resource, or a golden case")
    if data["resourceType"] != "Bundle":
        return [data]
    entries = [entry for entry in data.get("entry", ()) if isinstance(entry, dict) and "resource" in entry]
    named: dict[str, str] = {}
    for entry in entries:
        resource, url = entry["resource"], str(entry.get("fullUrl", ""))
        resource.setdefault("id", url.rpartition(":")[2].rpartition("/")[2] or f"r{len(named)}")
        named[url] = f"{resource['resourceType']}/{resource['id']}"
    return [_renamed(entry["resource"], named) for entry in entries]


def _renamed(node: Any, named: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: named.get(value, value) if key == "reference" and isinstance(value, str) else _renamed(value, named)
            for key, value in node.items()
        }
    return [_renamed(each, named) for each in node] if isinstance(node, list) else node


def given_answer(what: str) -> list[str]:
    """The models' answers that stand in a golden case, as JSON, in the order of the questions, then of the panel; none
    where `what` is something else.
    """
    path = Path(what)
    data = _json(path) if path.is_file() else {}
    if "trigger" not in data or "expect" not in data:
        return []
    by = dict(data.get("answers") or {})
    panel = [said for said in (data.get("panel") or {}).values() if not isinstance(said, str)]
    answers = [data.get("answer"), by.pop(FIRST, None), *by.values(), *panel]
    return [json.dumps(answer, ensure_ascii=False) for answer in answers if answer is not None]
