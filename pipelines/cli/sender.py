"""Sends files to a running gateway as a hospital system would: in order, patiently, and saying what became of each."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from pipelines.config import Config
from pipelines.errors import ConfigError

Result = Literal["taken", "refused", "failed"]

ATTEMPTS = 6
_WAIT_AT_MOST = 10.0
_TYPES = {
    ".json": "application/fhir+json",
    ".ndjson": "application/fhir+json",
    ".jsonl": "application/fhir+json",
    ".xml": "application/fhir+xml",
}
_LINES = (".ndjson", ".jsonl")


@dataclass(frozen=True, slots=True)
class Problem:
    """A request that was not taken.

    Attributes:
        file: as named by the caller.
        line: of an NDJSON file, counted from 1; None for a whole file.
        status: HTTP status; None where there was no answer.
        why: the gateway's own words, which hold nothing of the file.
    """

    file: str
    line: int | None
    status: int | None
    why: str


@dataclass(slots=True)
class Sent:
    """What became of all requests."""

    files: int = 0
    requests: int = 0
    taken: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Request:
    file: str
    line: int | None
    body: bytes
    headers: dict[str, str]


def send_files(
    config: Config,
    files: Sequence[Path],
    source: str,
    *,
    progress: Callable[[Path, Result], None] = lambda file, result: None,
    transport: httpx.BaseTransport | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Send each file, and of NDJSON each line, one after the other; what is not taken now is sent again a few times.

    Args:
        config: where the gateway is, and the source's token.
        files: FHIR JSON, XML or NDJSON, each also gzipped (`.gz`).
        source: configured name to send as.
        progress: called after each request.
        transport: for tests.
        sleep: between tries, for tests.

    Raises:
        ConfigError: no such source, or a file is not there or of no known kind; nothing was sent then.
    """
    token = config.source(source).token.get_secret_value()
    for file in files:
        _kind(file)
        if not file.is_file():
            raise ConfigError(f"{file}: not found, or no file")
    sent = Sent(files=len(files))
    start = time.monotonic()
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{config.gateway.url}/fhir/{source}"
    with httpx.Client(headers=headers, timeout=60, transport=transport) as client:
        for file in files:
            for request in _requests(file):
                result, problem = _send(client, url, request, sleep)
                sent.requests += 1
                setattr(sent, result, getattr(sent, result) + 1)
                if problem is not None:
                    sent.problems.append(problem)
                progress(file, result)
    sent.seconds = round(time.monotonic() - start, 3)
    return sent


def _kind(file: Path) -> tuple[str, bool]:
    """The file's suffix without `.gz`, and whether it is gzipped."""
    packed = file.suffix == ".gz"
    suffix = Path(file.stem).suffix if packed else file.suffix
    if suffix not in _TYPES:
        raise ConfigError(f"{file}: of no known kind; {', '.join(_TYPES)} are, each also with .gz")
    return suffix, packed


def _requests(file: Path) -> Iterator[_Request]:
    suffix, packed = _kind(file)
    headers = {"Content-Type": _TYPES[suffix]}
    if suffix not in _LINES:
        encoding = {"Content-Encoding": "gzip"} if packed else {}
        yield _Request(str(file), None, file.read_bytes(), headers | encoding)
        return
    with gzip.open(file) if packed else file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _Request(str(file), number, line.strip(), headers)


def _send(
    client: httpx.Client, url: str, request: _Request, sleep: Callable[[float], None]
) -> tuple[Result, Problem | None]:
    status, why = None, ""
    for attempt in range(ATTEMPTS):
        try:
            answer = client.post(url, content=request.body, headers=request.headers)
        except httpx.HTTPError as error:
            status, why = None, f"no answer from the gateway ({type(error).__name__}); is it running?"
            wait = 0.5 * 2.0**attempt
        else:
            if answer.is_success:
                return "taken", None
            status, why = answer.status_code, _diagnostics(answer)
            if status not in (429, 503):
                return "refused", Problem(request.file, request.line, status, why)
            asked = answer.headers.get("retry-after", "")
            wait = float(asked) if asked.isdigit() else 1.0
        if attempt + 1 < ATTEMPTS:
            sleep(min(wait, _WAIT_AT_MOST))
    return "failed", Problem(request.file, request.line, status, why)


def _diagnostics(answer: httpx.Response) -> str:
    try:
        return "; ".join(str(issue["diagnostics"]) for issue in answer.json()["issue"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
