"""A FHIR server and a model server in one small process: `python -m tests.bench.fakes PORT`.

Their CPU is in no figure, so they are as light as can be: HTTP/1.1 by httptools, everything in memory. The FHIR side
keeps conditional creates as FHIR wants them, and its own record of what was written for which event, by what the
Provenance says, never by the keys that careloom makes: `GET /record`.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httptools
import orjson
import uvloop

from fhir_adapters.approval import asks_for_approval
from pipelines.stack.part import PROJECT
from pipelines.stack.schema_sample import least

NAME = "bench-fake"


class Hospital:
    """The FHIR side."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], str] = {}
        self._number = 0
        #: "Type/id" of an event's resource -> how often drafts for it were newly created, by type.
        self.written: dict[str, Counter[str]] = {}
        self.transactions = 0
        self.recognised = 0

    def read(self, kind: str, identifier: str) -> bytes:
        """A Patient, or whatever else is asked for by its id."""
        resource = {"resourceType": kind, "id": identifier, "meta": {"versionId": "1"}}
        if kind == "Patient":
            resource |= {"gender": "female", "birthDate": "1961-04-05", "name": [{"family": "Bench", "given": ["B"]}]}
        return orjson.dumps(resource)

    def search(self, kind: str, query: str) -> bytes:
        """One small resource of the type, of the patient that was asked about."""
        patient = (parse_qs(query).get("patient") or parse_qs(query).get("subject") or ["Patient/none"])[0]
        whose = {"reference": patient if "/" in patient else f"Patient/{patient}"}
        resource = {
            "resourceType": kind,
            "id": f"{kind[:4].lower()}-{whose['reference'][8:]}",
            "meta": {"versionId": "1"},
        }
        concept = {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}], "text": "hypertension"}
        active = {"coding": [{"code": "active"}]}
        if kind == "MedicationRequest":
            resource |= {"subject": whose, "status": "active", "intent": "order", "medicationCodeableConcept": concept}
        elif kind == "AllergyIntolerance":
            resource |= {"patient": whose, "clinicalStatus": active, "code": concept}
        else:
            resource |= {"subject": whose, "clinicalStatus": active, "code": concept, "recordedDate": "2020-01-01"}
        bundle = {"resourceType": "Bundle", "type": "searchset", "total": 1}
        return orjson.dumps(bundle | {"entry": [{"resource": resource, "search": {"mode": "match"}}]})

    def transaction(self, body: bytes) -> bytes:
        """Conditional creates, all or none; what is new is noted by the event that its Provenance names."""
        bundle = orjson.loads(body)
        entries, new = [], Counter[str]()
        event = "none"
        for entry in bundle["entry"]:
            kind = entry["resource"]["resourceType"]
            key = (kind, entry["request"].get("ifNoneExist") or str(self._number))
            created = key not in self._made
            if created:
                self._number += 1
                self._made[key] = f"{kind}/{self._number}"
            if asks_for_approval(entry["resource"]):
                kind = "Task approve"  # beside the Task that a red flag makes: one each is right
            if kind == "Provenance":
                event = _event(entry["resource"])
            elif kind != "Device":
                new[kind] += created
                self.recognised += not created
            status = "201 Created" if created else "200 OK"
            location = f"{self._made[key]}/_history/1"
            entries.append({"response": {"status": status, "location": location, "etag": 'W/"1"'}})
        self.transactions += 1
        self.written.setdefault(event, Counter()).update(new)
        return orjson.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries})

    def record(self) -> bytes:
        """What was written, for the benchmark."""
        return orjson.dumps({"written": self.written, "transactions": self.transactions, "recognised": self.recognised})


def _event(provenance: dict[str, Any]) -> str:
    reference = provenance["entity"][0]["what"]["reference"]
    return str(reference.split("/_history/")[0])


class Model:
    """The model side: the answer to a triage question, the least that the schema allows to any other."""

    def answer(self, body: bytes) -> bytes:
        """A chat completion."""
        schema = orjson.loads(body)["response_format"]["json_schema"]["schema"]
        if "acuity" in schema["properties"]:
            said = {"acuity": "3", "department": "internal_medicine"}
            said = {"reasons": [{"text": "the reason of the visit", "sources": ["R1"]}], **said}
        else:
            said = least(schema)
        message = {"role": "assistant", "content": orjson.dumps(said).decode()}
        return orjson.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "model": NAME,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            }
        )


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, hospital: Hospital, model: Model) -> None:
        self._hospital = hospital
        self._model = model
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._body = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._answer(self._parser.get_method(), self._url.decode(), b"".join(self._body))
        status = b"404 Not Found" if body is None else b"200 OK"
        head = b"HTTP/1.1 %b\r\ncontent-type: application/fhir+json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body or b"")) + (body or b""))

    def _answer(self, method: bytes, url: str, body: bytes) -> bytes | None:
        parts = urlsplit(url)
        match [method, *parts.path.strip("/").split("/")]:
            case [b"POST", "v1", "chat", "completions"]:
                return self._model.answer(body)
            case [b"POST", "fhir"]:
                return self._hospital.transaction(body)
            case [b"GET", "fhir", "metadata"]:
                return orjson.dumps({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})
            case [b"GET", "fhir", kind]:
                return self._hospital.search(kind, parts.query)
            case [b"GET", "fhir", kind, identifier]:
                return self._hospital.read(kind, identifier)
            case [b"GET", "record"]:
                return self._hospital.record()
            case _:
                return None


def start(port: int) -> subprocess.Popen[bytes]:
    """Start the process, and return when it takes connections. It ends with the caller, whose pipe it reads.

    Raises:
        RuntimeError: it did not come up; its words are on standard error.
    """
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.bench.fakes", str(port)), cwd=PROJECT, stdin=subprocess.PIPE
    )
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process
    process.kill()
    process.wait()
    raise RuntimeError("the fakes of hospital and model did not come up")


async def serve(port: int) -> None:
    """Serve on loopback until the process is ended, or its standard input is closed: who started it is gone."""
    hospital, model = Hospital(), Model()
    loop, orphaned = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, orphaned.set)
    async with await loop.create_server(lambda: Connection(hospital, model), "127.0.0.1", port):
        await orphaned.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
