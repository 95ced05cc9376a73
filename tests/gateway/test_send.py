"""`careloom send`: what is sent, how patiently, what is reported, and the exit codes."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from pipelines.cli.app import build, run
from pipelines.cli.sender import ATTEMPTS, send_files
from pipelines.errors import ConfigError
from pipelines.stack.settings import toml

PATIENT = b'{"resourceType": "Patient", "id": "p1"}'


class Gateway:
    """An httpx transport that answers as told, by the number of the request."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(204)
        if isinstance(answer, Exception):
            raise answer
        return answer


def outcome(status: int, why: str, **headers: str) -> httpx.Response:
    issue = {"severity": "error", "code": "invalid", "diagnostics": why}
    return httpx.Response(status, json={"resourceType": "OperationOutcome", "issue": [issue]}, headers=headers)


@pytest.fixture
def send(make_config):
    def go(gateway: Gateway, *files, source: str = "hospital"):
        waits: list[float] = []
        sent = send_files(make_config(), files, source, transport=gateway.transport, sleep=waits.append)
        return sent, waits

    return go


def test_each_kind_of_file_is_sent_as_it_is(send, tmp_path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json.gz", "c.ndjson", "d.xml", "e.ndjson.gz")]
    contents = [
        PATIENT,
        gzip.compress(PATIENT),
        PATIENT + b"\n\n" + PATIENT + b"\n",
        b"<Patient/>",
        gzip.compress(PATIENT),
    ]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    gateway = Gateway()
    sent, _ = send(gateway, *files)
    assert (sent.files, sent.requests, sent.taken, sent.problems) == (5, 6, 6, [])
    assert [request.content for request in gateway.requests] == [
        PATIENT, contents[1], PATIENT, PATIENT, b"<Patient/>", PATIENT
    ]  # fmt: skip
    assert gateway.requests[1].headers["content-encoding"] == "gzip"
    assert gateway.requests[4].headers["content-type"] == "application/fhir+xml"
    assert {request.headers["authorization"] for request in gateway.requests} == {"Bearer a-token-for-tests"}
    assert {request.url.path for request in gateway.requests} == {"/fhir/hospital"}


def test_what_is_not_taken_now_is_sent_again_after_the_time_asked_for(send, tmp_path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(PATIENT)
    busy = outcome(503, "not now", **{"retry-after": "3"})
    sent, waits = send(Gateway(busy, httpx.ConnectError("down")), file)
    assert (sent.taken, waits) == (1, [3.0, 1.0])
    sent, waits = send(Gateway(*[busy] * ATTEMPTS), file)
    assert (sent.taken, sent.failed, len(waits)) == (0, 1, ATTEMPTS - 1)
    assert sent.problems[0].why == "not now"


def test_what_is_refused_is_reported_with_its_line_and_not_sent_again(send, tmp_path) -> None:
    file = tmp_path / "a.ndjson"
    file.write_bytes(b"{}\n" + PATIENT)
    gateway = Gateway(outcome(422, "the resource: has no resourceType"))
    sent, _ = send(gateway, file)
    assert (sent.taken, sent.refused, len(gateway.requests)) == (1, 1, 2)
    assert (sent.problems[0].line, sent.problems[0].status) == (1, 422)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [("gone.json", "hospital", "not found"), ("a.txt", "hospital", "no known kind"), ("a.json", "nobody", "no source")],
)
def test_a_wrong_call_sends_nothing(name, source, message, send, tmp_path) -> None:
    (tmp_path / "a.json").write_bytes(PATIENT)
    gateway = Gateway()
    with pytest.raises(ConfigError, match=message):
        send(gateway, tmp_path / "a.json", tmp_path / name, source=source)
    assert gateway.requests == []


@pytest.mark.parametrize(("answer", "code"), [(httpx.Response(204), 0), (outcome(422, "no"), 1)])
def test_the_command_prints_one_json_object_and_its_exit_code_tells(
    answer, code, tmp_path, monkeypatch, capsys, make_config
) -> None:
    config = tmp_path / "careloom.toml"
    source = {"name": "hospital", "fhir_version": "R4", "token": "t"}
    sections = {
        "ledger": {"url": "postgresql://h/l"},
        "airflow": {"password": "x"},
        "model": {"name": "m", "version": "1"},
    }
    config.write_text(toml({"state_dir": ".", "patient_salt": "s", "sources": [source], **sections}))
    file = tmp_path / "a.json"
    file.write_bytes(PATIENT)
    monkeypatch.setattr(httpx.Client, "post", lambda *_, **__: answer)
    monkeypatch.setattr("sys.argv", ["careloom", "send", "--config", str(config), "--json", str(file)])
    assert run(build()) == code
    printed = json.loads(capsys.readouterr().out)
    assert (printed["requests"], printed["taken"]) == (1, 1 - code)
    monkeypatch.setattr("sys.argv", ["careloom", "send", "--config", str(config), "--source", "nobody", str(file)])
    assert run(build()) == 2
