"""Whatever the quick look calls valid, fhir.resources takes too: on all of the shared data, and on changes of it."""

from __future__ import annotations

import copy
import gzip
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_adapters.event import FhirVersion
from fhir_adapters.fhir_models import model_of
from fhir_adapters.plainly_valid import MAX_LEVELS, plainly_valid
from fhir_adapters.resource_types import versions_of

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
VERSIONS: tuple[FhirVersion, ...] = ("R4", "R5")
#: Values that stand on an edge of some rule, or on the wrong side of it.
EDGES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**31 - 1, -(2**31) - 1, 2**53, 1.5, 7.0, 1e-7, 1e20, 1e300, -0.0),
    *(
        "",
        " ",
        "\t",
        "\u3000",
        "\u0085",
        "\u200b",
        "a",
        "a b",
        "a  b",
        " a",
        "a ",
        "a\n",
        "é",
        "x" * 65,
        "x" * 300,
        "張",
    ),
    *("0000-01-01", "2026", "2026-02", "2026-13", "2024-02-29", "2023-02-29", "2026-04-31", "2026-12-31", "1899-1-1"),
    *("2026-01-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01T00:00:00", "12:00:00"),
    *("2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00+14:00", "2026-01-01T00:00:00-13:59", "12:00", "24:00:00"),
    *("2026-01-01T00:00:00+13:30", "2026-01-01t00:00:00z", "२०२६", "urn:oid:1.2.3", "urn:oid:3.1", "urn:uuid:x"),
    *("http://a/b", "ftp://x y", "#a", "AAAA", "AAA=", "AAA", "A===", "====", "<div/>", "Patient/1", "1", "1.50"),
    *([], {}, [None], [[]], [{}], {"a": 1}, ["a"], ["a", None], [1], [True]),
    *({"extension": []}, {"url": "u"}, {"resourceType": "Patient"}, {"resourceType": "Nothing"}, {"resourceType": 1}),
    {"system": "http://a", "code": "c"},
    {"reference": "Patient/p"},
    {"start": "2026-01-01", "end": "2026-01-02"},
)
NAMES = ("id", "text", "code", "value", "valueString", "valueBoolean", "_status", "resourceType", "fhir_comments", "x")


def reference_takes(resource: dict[str, Any], version: FhirVersion) -> bool:
    model = model_of(resource["resourceType"], version)
    assert model is not None
    try:
        model.model_validate(resource)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
        return False
    return True


def resources_in(value: Any) -> Iterator[dict[str, Any]]:
    """A resource, and those in the entries of a Bundle each by itself."""
    if isinstance(value, dict) and isinstance(value.get("resourceType"), str):
        yield value
        for entry in value.get("entry") or () if value["resourceType"] == "Bundle" else ():
            if isinstance(entry, dict):
                yield from resources_in(entry.get("resource"))


def shared() -> Iterator[tuple[FhirVersion, dict[str, Any]]]:
    """Every resource of the shared data that has a model, in each FHIR version that knows its type."""
    for file in sorted(SHARED.rglob("*.json*")):
        try:
            found = orjson.loads(gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes())
        except (ValueError, OSError):
            continue
        for resource in resources_in(found):
            for version in VERSIONS:
                if version in versions_of(resource["resourceType"]) and model_of(resource["resourceType"], version):
                    yield version, resource


def few_of_each_type(most: int) -> list[tuple[FhirVersion, dict[str, Any]]]:
    """The smaller ones, so that a change meets a rule and not one more repetition."""
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for version, resource in shared():
        if len(orjson.dumps(resource)) < 6000 and plainly_valid(resource, version):
            of_type = kept.setdefault((version, resource["resourceType"]), [])
            if len(of_type) < most:
                of_type.append(resource)
    return [(version, one) for (version, _), found in kept.items() for one in found]  # type: ignore[misc]


def places_in(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) below a node."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from places_in(node[key])


def change(resource: dict[str, Any], by: random.Random) -> dict[str, Any]:
    """One random change to a copy: a value of another kind, an element more, one less, one that stands elsewhere."""
    changed = copy.deepcopy(resource)
    places = list(places_in(changed))
    container, key = by.choice(places)
    how = by.randrange(5)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, dict):
        container[by.choice(NAMES)] = copy.deepcopy(by.choice(EDGES))
    elif how == 2 and isinstance(container, dict):
        elsewhere, its_key = by.choice(places)
        container[str(its_key)] = copy.deepcopy(elsewhere[its_key])
    else:
        container[key] = copy.deepcopy(by.choice(EDGES))
    return changed


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.long)])
def test_all_of_the_shared_data_that_is_plainly_valid_is_taken_by_fhir_resources_and_that_is_most_of_it(
    step: int,
) -> None:
    seen = said = 0
    for version, resource in itertools.islice(shared(), 0, None, step):
        seen += 1
        if plainly_valid(resource, version):
            said += 1
            assert reference_takes(resource, version), f"{resource['resourceType']} of {version}"
    assert said > seen / 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_of_thousands_of_changed_resources_none_is_plainly_valid_that_fhir_resources_refuses() -> None:
    by = random.Random(20261128)
    agreed = 0
    for version, resource in few_of_each_type(2):
        for _ in range(25):
            changed = change(resource, by)
            if isinstance(changed.get("resourceType"), str) and plainly_valid(changed, version):
                agreed += 1
                assert reference_takes(changed, version), changed
    assert agreed > 300


@pytest.mark.parametrize("version", VERSIONS)
def test_each_value_on_an_edge_is_plainly_valid_in_an_extension_only_where_fhir_resources_takes_it(
    version: FhirVersion,
) -> None:
    extension = model_of("Patient", version).model_fields["extension"]  # type: ignore[union-attr]
    assert extension is not None
    kinds = (
        "Base64Binary Boolean Canonical Code Date DateTime Decimal Id Instant Integer Markdown Oid PositiveInt String"
    )
    said = set()
    for kind in f"{kinds} Time UnsignedInt Uri Url Uuid Integer64 Period Coding Reference".split():
        for value in EDGES:
            patient = {"resourceType": "Patient", "extension": [{"url": "u", f"value{kind}": value}]}
            if plainly_valid(patient, version):
                said.add(kind)
                assert reference_takes(patient, version), (kind, value)
    assert said >= set(kinds.split())


def test_what_is_deeper_than_a_record_ever_is_is_left_to_fhir_resources() -> None:
    def nested(levels: int) -> dict[str, Any]:
        extension: dict[str, Any] = {"url": "u", "valueCode": "c"}
        for _ in range(levels):
            extension = {"url": "u", "extension": [extension]}
        return {"resourceType": "Patient", "extension": [extension]}

    assert plainly_valid(nested(MAX_LEVELS - 2), "R4")
    assert reference_takes(nested(MAX_LEVELS - 2), "R4")
    assert not plainly_valid(nested(MAX_LEVELS - 1), "R4")


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"resourceType": "Nothing"},
        {"resourceType": ["Patient"]},
        {"resourceType": "Observation", "code": {"text": "t"}},  # status is required
        {"resourceType": "Observation", "status": "final"},  # so is code
        {"resourceType": "Patient", "deceasedBoolean": True, "deceasedDateTime": "2026"},  # one of them, not both
        {"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": {"reference": "p"}},
        {"resourceType": "Patient", "contained": [{"resourceType": "Nothing"}]},
        {"resourceType": "Patient", "name": []},
        {"resourceType": "Patient", "name": [{"family": None}]},
    ],
)
def test_what_lacks_something_or_has_it_twice_is_never_plainly_valid(resource: dict[str, Any]) -> None:
    assert not plainly_valid(resource, "R4")
