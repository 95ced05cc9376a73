"""FHIR XML becomes FHIR JSON with every value as written; DTDs, entities and foreign elements are refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from fhir_adapters.errors import MalformedJson, NotFhir, Refused
from fhir_adapters.fhir_xml import to_json

NS = 'xmlns="http://hl7.org/fhir"'


def test_values_keep_their_digits_and_lists_their_shape() -> None:
    xml = f"""<Observation {NS}><id value="o"/>
      <text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml">a <b>b</b></div></text>
      <contained><Patient><id value="p"/><active value="true"/>
        <name><given value="A" id="x"/><given value="B"><extension url="http://e"><valueString value="v"/></extension>
        </given></name></Patient></contained>
      <status value="final"/><code><text value="k"/></code><issued value="2020-04-17T10:24:13.1882432-05:00"/>
      <valueQuantity><value value="7.20"/></valueQuantity>
      <component><code><text value="c"/></code><valueInteger value="3"/></component></Observation>"""
    body = to_json(xml.encode(), "R4")
    assert b'"value":7.20' in body
    found = json.loads(body, parse_float=Decimal)
    assert found["issued"] == "2020-04-17T10:24:13.1882432-05:00"
    assert found["text"]["div"] == '<div xmlns="http://www.w3.org/1999/xhtml">a <b>b</b></div>'
    assert found["contained"][0]["active"] is True
    name = found["contained"][0]["name"][0]
    assert name["given"] == ["A", "B"]
    assert name["_given"] == [{"id": "x"}, {"extension": [{"url": "http://e", "valueString": "v"}]}]
    assert found["component"] == [{"code": {"text": "c"}, "valueInteger": 3}]


def test_what_is_a_list_depends_on_the_fhir_version() -> None:
    xml = f'<Encounter {NS}><status value="planned"/><class><id value="c"/></class></Encounter>'.replace(
        "<id value=", "<!-- a comment --><extension url='http://e'/><!--"
    ).replace("/></class>", "--></class>")
    assert isinstance(json.loads(to_json(xml.encode(), "R4"))["class"], dict)
    assert isinstance(json.loads(to_json(xml.encode(), "R5"))["class"], list)


@pytest.mark.parametrize(
    ("xml", "error"),
    [
        (f'<!DOCTYPE x [<!ENTITY a "b">]><Patient {NS}><id value="&a;"/></Patient>', MalformedJson),
        (f'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Patient {NS}/>', MalformedJson),
        (f"<Patient {NS}>", MalformedJson),
        ("", MalformedJson),
        (f'<?xml version="1.0" encoding="nonsense"?><Patient {NS}/>', MalformedJson),
        (f"<Patient {NS}>" + '<extension url="u">' * 5000 + "</extension>" * 5000 + "</Patient>", MalformedJson),
        ("<Patient/>", NotFhir),
        (f"<Banana {NS}/>", NotFhir),
        (f'<Patient {NS}><banana value="1"/></Patient>', NotFhir),
        (f'<Patient {NS}><x xmlns="urn:other"/></Patient>', NotFhir),
        (f'<Patient {NS}><gender value="male"/><gender value="female"/></Patient>', NotFhir),
        (f'<Patient {NS}><active value="yes"/></Patient>', NotFhir),
        (f'<Patient {NS}><multipleBirthInteger value="01"/></Patient>', NotFhir),
        (f"<Patient {NS}><contained/></Patient>", NotFhir),
    ],
)
def test_xml_that_is_no_fhir_is_refused(xml: str, error: type[Refused]) -> None:
    with pytest.raises(error):
        to_json(xml.encode(), "R4")


def test_other_encodings_than_utf_8_are_refused() -> None:
    with pytest.raises(MalformedJson):
        to_json(f"<Patient {NS}/>".encode("utf-16"), "R4")


def test_the_invalid_status_example_is_read_for_validation_to_find(shared_data: Path) -> None:
    body = (shared_data / "invalid" / "ObservationWithInvalidStatus.xml").read_bytes()
    assert json.loads(to_json(body.removeprefix(b"\xef\xbb\xbf"), "R4"))["resourceType"] == "Observation"
