"""A client of the part of Airflow's REST API (v2) that the dispatcher needs: runs, their states, and the DAGs."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from pipelines.config import Airflow
from pipelines.errors import AirflowError, AirflowUnavailable

#: The most that Airflow gives at once (`[api] maximum_page_limit`).
_PAGE = 100
_TAG = "careloom"


class Triggered(enum.Enum):
    """What became of the request for a run."""

    CREATED = "created"
    ALREADY_THERE = "already_there"


class AirflowApi:
    """Airflow's REST API with the token of the simple auth manager; safe to share between threads.

    Nothing is tried twice here but a request whose token had run out: who calls decides on retries.

    Args:
        config: where Airflow is, and as whom to speak.
        timeout: seconds for one request.
        keep_dags: seconds that the list of DAGs may be old.
        transport: another way to Airflow, for tests.
    """

    def __init__(
        self,
        config: Airflow,
        *,
        timeout: float = 10.0,
        keep_dags: float = 2.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._config = config
        # Airflow stands in the same house: a proxy for the outside is not asked
        self._client = httpx.Client(
            base_url=config.url.rstrip("/"), timeout=timeout, transport=transport, trust_env=False
        )
        self._keep_dags = keep_dags
        self._token: str | None = None
        self._token_lock = threading.Lock()
        self._dags: tuple[float, Mapping[str, bool]] | None = None

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> Triggered:
        """Ask for a run. The same run asked for again is already there: nothing happens twice.

        Args:
            dag_id: the scenario's id.
            run_id: as the ledger decided on it.
            conf: stands in Airflow's database and UI: references and counts only.

        Raises:
            AirflowUnavailable: no answer, 429 or 5xx; the run may or may not be there, so ask again.
            AirflowError: refused, for example a DAG that is not there (404) or cannot be imported (400).
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        answer = self._request("POST", f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns", json=body)
        if answer.status_code == httpx.codes.CONFLICT:
            return Triggered.ALREADY_THERE
        self._check(answer, f"a run of {dag_id}")
        return Triggered.CREATED

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """queued, running, success or failed; None where Airflow knows no such run.

        Raises:
            AirflowUnavailable: no answer, 429 or 5xx.
            AirflowError: refused.
        """
        answer = self._request("GET", f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        self._check(answer, f"the state of a run of {dag_id}")
        return str(_json(answer)["state"])

    def dags(self, *, leniently: bool = False) -> Mapping[str, bool]:
        """careloom's DAGs that Airflow can run, and whether each is paused; a few seconds old at most.

        Args:
            leniently: a list half as old again will do; who asks more often than that, strictly, never waits for it.

        Raises:
            AirflowUnavailable: no answer, 429 or 5xx.
            AirflowError: refused.
        """
        now = time.monotonic()
        if self._dags is None or now - self._dags[0] > self._keep_dags * (1.5 if leniently else 1.0):
            self._dags = (now, self._read_dags())
        return self._dags[1]

    def paused(self) -> set[str]:
        """Those of `dags()` that are paused. Raises as it does."""
        return {dag_id for dag_id, paused in self.dags().items() if paused}

    def _read_dags(self) -> dict[str, bool]:
        found: dict[str, bool] = {}
        seen, total = 0, 1
        while seen < total:
            page = {"tags": _TAG, "limit": _PAGE, "offset": seen}
            answer = self._request("GET", "/api/v2/dags", params=page)
            self._check(answer, "the list of DAGs")
            body = _json(answer)
            dags, total = body["dags"], int(body["total_entries"])
            found |= {dag["dag_id"]: dag["is_paused"] for dag in dags if not dag.get("has_import_errors")}
            seen += len(dags) or _PAGE
        return found

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request; once more with a new token when Airflow does not know the old one any longer."""
        token = self._token or self._new_token(None)
        answer = self._send(method, path, headers={"Authorization": f"Bearer {token}"}, **arguments)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            token = self._new_token(token)
            answer = self._send(method, path, headers={"Authorization": f"Bearer {token}"}, **arguments)
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise AirflowUnavailable(f"Airflow at {self._config.url} does not answer: {type(error).__name__}") from None
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            raise AirflowUnavailable(
                f"Airflow at {self._config.url} answered {answer.status_code} to {method} {path}",
                retry_after=_seconds(answer.headers.get("retry-after")),
            )
        return answer

    def _new_token(self, old: str | None) -> str:
        """A token other than `old`; one thread asks, the others take what it got."""
        with self._token_lock:
            if self._token is None or self._token == old:
                login = {"username": self._config.username, "password": self._config.password.get_secret_value()}
                answer = self._send("POST", "/auth/token", json=login)
                self._check(answer, f"a token for {self._config.username!r} (airflow.username, airflow.password)")
                self._token = str(_json(answer)["access_token"])
            return self._token

    def _check(self, answer: httpx.Response, what: str) -> None:
        """Anything but 2xx is an error; Airflow's words are not repeated."""
        if not answer.is_success:
            raise AirflowError(f"Airflow at {self._config.url} answered {answer.status_code} to {what}")


def _seconds(retry_after: str | None) -> float | None:
    """The delay-seconds form of Retry-After (RFC 9110 10.2.3), as proxies in front of Airflow send it."""
    try:
        return max(float(retry_after or ""), 0.0)
    except ValueError:
        return None


def _json(answer: httpx.Response) -> Any:
    """The answer's JSON; a page of a proxy in between is no answer of Airflow's."""
    try:
        return answer.json()
    except ValueError:
        raise AirflowUnavailable(f"{answer.url.host}: the answer is not Airflow's JSON") from None
