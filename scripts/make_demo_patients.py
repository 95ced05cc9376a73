"""Make the demo's patients from third-party generators' output: smaller, self-contained, loadable again and again.

    python scripts/make_demo_patients.py ../shared/data pipelines/demo/patients

What changes against the generators' files, and nothing else:
- patients who have died are left out: nobody follows them up;
- resource types that no scenario reads are left out (claims, devices, care teams, ...), and references to them;
- clinical resources older than two years before the record's last entry are left out, but for problems, allergies
  and what those refer to;
- entries become `PUT Type/id` with the ids that the generators gave, so that loading twice is loading once, and
  conditional references (`Practitioner?identifier=...`) become plain ones.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEPT = {
    "Patient", "Encounter", "Condition", "AllergyIntolerance", "Observation", "Medication", "MedicationRequest",
    "Procedure", "DiagnosticReport", "Immunization", "Organization", "Practitioner", "Location",
}  # fmt: skip
ALWAYS = {"Patient", "Medication", "Condition", "AllergyIntolerance", "Organization", "Practitioner", "Location"}
YEARS = 2
SETS = {"synthea": 16, "patients-synthea-like": 8}


def main() -> None:
    """Write `hospital.json.gz` and one file a patient."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    shared = [
        entry["resource"]
        for name in ("hospitals", "practitioners")
        for entry in read(source / f"synthea/{name}.json.gz")
    ]
    by_identifier = {
        f"{r['resourceType']}?identifier={i.get('system')}|{i.get('value')}": f"{r['resourceType']}/{r['id']}"
        for r in shared
        for i in r.get("identifier", [])
    }
    hospital = {f"{r['resourceType']}/{r['id']}": r for r in shared if r["resourceType"] in KEPT}
    used: set[str] = set()
    for folder, count in SETS.items():
        for number in range(1, count + 1):
            resources = kept([e["resource"] for e in read(source / folder / f"patient-{number:02}.json.gz")])
            if any(key.startswith("deceased") for r in resources if r["resourceType"] == "Patient" for key in r):
                continue
            known = {f"{r['resourceType']}/{r['id']}" for r in resources} | set(hospital)
            cleaned = [clean(r, by_identifier, known, used) for r in resources]
            write(target / f"{folder}-{number:02}.json.gz", [r for r in cleaned if r])
    grown = -1
    while grown != len(used):  # a location's organization is needed as well
        grown = len(used)
        for name in sorted(used & set(hospital)):
            clean(hospital[name], by_identifier, set(hospital), used)
    write(
        target / "hospital.json.gz",
        [clean(r, by_identifier, set(hospital), used) for n, r in hospital.items() if n in used],
    )


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a Bundle."""
    entries: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()), parse_float=Number)["entry"]
    return entries


class Number(float):
    """A decimal that keeps its digits: FHIR says that 7.20 is not 7.2."""

    def __new__(cls, digits: str) -> Number:
        """Remember the digits."""
        self = super().__new__(cls, digits)
        self.digits = digits
        return self

    digits: str


def when(resource: dict[str, Any]) -> str:
    """Its date, as far as it has one."""
    for key in ("effectiveDateTime", "authoredOn", "occurrenceDateTime", "performedDateTime", "issued"):
        if key in resource:
            return str(resource[key])
    period = resource.get("period") or resource.get("performedPeriod") or {}
    return str(period.get("start", ""))


def kept(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a scenario could read."""
    last = max(when(r) for r in resources)
    first = f"{int(last[:4]) - YEARS}{last[4:10]}"
    return [
        r
        for r in resources
        if r["resourceType"] in KEPT
        and (r["resourceType"] in ALWAYS or when(r) >= first)
        and r.get("status") != "entered-in-error"
    ]


def clean(value: Any, by_identifier: dict[str, str], known: set[str], used: set[str]) -> Any:
    """The value with its references resolved, and without those that lead nowhere."""
    if isinstance(value, list):
        items = [clean(item, by_identifier, known, used) for item in value]
        return [item for item in items if item not in (None, {}, [])] or None
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("reference"), str):
        name = resolve(value["reference"], by_identifier, known)
        if name is None:
            return {"display": value["display"]} if "display" in value else None
        used.add(name)
        return {**value, "reference": name}
    cleaned = {key: clean(item, by_identifier, known, used) for key, item in value.items()}
    return {key: item for key, item in cleaned.items() if item not in (None, {}, [])} or None


def resolve(reference: str, by_identifier: dict[str, str], known: set[str]) -> str | None:
    """ "Type/id", or None where it leads to nothing that is kept."""
    if reference in by_identifier:
        return by_identifier[reference] if by_identifier[reference] in known else None
    tail = reference.removeprefix("urn:uuid:")
    return next(
        (f"{kind}/{tail}" for kind in KEPT if f"{kind}/{tail}" in known), reference if reference in known else None
    )


def write(path: Path, resources: list[dict[str, Any]]) -> None:
    """One transaction Bundle, compressed the same way each time."""
    entries = [
        {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}} for r in resources
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    body = "".join(encode(bundle)).encode()
    path.write_bytes(gzip.compress(body, mtime=0))
    print(f"{path.name}: {len(entries)} resources, {len(body) / 1e6:.2f} MB", file=sys.stderr)


def encode(value: Any) -> Iterator[str]:
    """Compact JSON in which every decimal keeps its digits."""
    if isinstance(value, Number):
        yield value.digits
    elif isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else ''}{json.dumps(key, ensure_ascii=False)}:"
            yield from encode(item)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number, item in enumerate(value):
            yield "," if number else ""
            yield from encode(item)
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
