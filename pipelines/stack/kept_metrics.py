"""What a stack's Prometheus has kept, asked again after the stack has stopped (or while it runs)."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from pipelines.errors import StackError
from pipelines.stack.ports import choose

#: Seconds from one point of a line to the next: how often Prometheus scrapes (monitoring/prometheus.yml).
STEP = 5

Series = dict[str, Any]
"""Prometheus' own: `metric`, and `value` or `values`."""


class Kept:
    """A Prometheus over the storage of one that has stopped; gives its URL. It scrapes nothing and judges no alert.

    Args:
        data: the storage (STATE/prometheus/data).

    Raises:
        StackError: it does not start.
    """

    def __init__(self, data: Path) -> None:
        self._data = data

    def __enter__(self) -> str:
        self._folder = tempfile.TemporaryDirectory()
        folder, port = Path(self._folder.name), choose([])
        (folder / "empty.yml").write_text("{}", encoding="utf-8")
        self._log = (folder / "log").open("wb")
        arguments = (
            f"--config.file={folder / 'empty.yml'}",
            f"--storage.tsdb.path={self._data}",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        self._process = subprocess.Popen(["prometheus", *arguments], stdout=self._log, stderr=self._log)
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                if httpx.get(f"{url}/-/ready", timeout=5).status_code == 200:
                    return url
            except httpx.HTTPError:
                pass
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        said = (folder / "log").read_text("utf-8")[-500:]
        self.__exit__(None, None, None)
        raise StackError(f"Prometheus over {self._data} did not start: {said}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()


class Answers:
    """Asks a Prometheus as Grafana would.

    Args:
        url: of it.
        chosen: variable -> what is chosen; all where it is left out.
    """

    def __init__(self, url: str, chosen: dict[str, str] | None = None) -> None:
        self._url = url
        self._chosen = chosen or {}

    def choosing(self, chosen: dict[str, str]) -> Answers:
        """The same server, asked with these chosen."""
        return Answers(self._url, chosen)

    def at(self, expression: str, when: float) -> list[Series]:
        """The newest values at a Unix time."""
        return self._get("query", query=self.plain(expression), time=str(when))

    def over_time(self, expression: str, begin: float, end: float) -> list[Series]:
        """Lines from one Unix time to another."""
        return self._get("query_range", query=self.plain(expression), start=str(begin), end=str(end), step=str(STEP))

    def values_of(self, label: str, selector: str, when: float) -> list[str]:
        """What `label_values(selector, label)` of a variable finds."""
        found = self._get("series", **{"match[]": self.plain(selector), "start": str(when - 600), "end": str(when)})
        return sorted({series[label] for series in found if label in series})

    def scraped(self, after: float = 0.0, before: float = float("inf")) -> tuple[float, float]:
        """From when until when the exporter was scraped, in Unix time.

        A stack stops its processes before Prometheus, and a value is shown for five minutes after it was scraped last.

        Args:
            after, before: look at the time between these alone.

        Raises:
            StackError: it was not.
        """
        end = min(before, time.time())
        week = self._get("query", query='timestamp(last_over_time(up{job="exporter"}[7d]))', time=str(end))
        found = max((float(series["value"][1]) for series in week), default=0.0)
        begin = max(after, found - 3600)
        step = {"start": str(begin), "end": str(min(end, found + 300)), "step": str(STEP)}
        fine = self._get("query_range", query='timestamp(up{job="exporter"}) and (up{job="exporter"} == 1)', **step)
        times = [float(stamp) for series in fine for _, stamp in series["values"] if begin <= float(stamp) <= end]
        if not times:
            raise StackError(f"{self._url} has scraped no exporter in that time")
        return min(times), max(times)

    def plain(self, expression: str) -> str:
        """A query as Prometheus itself takes it: variables as they are chosen."""
        text = expression.replace("$__rate_interval", "1m")
        return re.sub(r"\$(scenario|stage)\b", lambda found: self._chosen.get(found[1], ".*"), text)

    def _get(self, what: str, **parameters: str) -> list[Series]:
        answer = httpx.get(f"{self._url}/api/v1/{what}", params=parameters, timeout=60)
        body = answer.json()
        if body.get("status") != "success":
            raise StackError(f"Prometheus refuses {parameters}: {body.get('error')}")
        found: list[Series] = body["data"] if what == "series" else body["data"]["result"]
        return found
