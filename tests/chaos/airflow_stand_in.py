"""A stand-in for Airflow: the dispatcher's part of its REST API, and an executor whose tasks are forked processes.

It is held to what Airflow 3.3.2 does (`test_airflow_stand_in.py`, and `tests/dispatcher/test_on_airflow.py` for the
real one): a run that is asked for twice is there once and is answered 409; a task that broke or lost its worker is
tried once more, one that said that everything failed is not; a run is what its task was.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from forks import ALL_FAILED, DONE, Child, Zygote
from serving import Served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PASSWORD = "a-password-for-chaos"
#: The role of a run's one task.
TASK = "carry"
_TRIES = 2
#: Seconds before a task that broke is tried again (Airflow: `retry_delay`, 1 s in our DAGs).
_RETRY_DELAY = 0.1
#: Seconds after which a stopped worker counts as lost (Airflow: `task_instance_heartbeat_timeout`).
_HEARTBEAT_TIMEOUT = 1.0


@dataclass
class Run:
    """One run as Airflow would know it."""

    dag_id: str
    run_id: str
    state: str = "queued"
    tries: int = 0
    child: Child | None = None


@dataclass
class Chaos:
    """What the harness wants to happen to tasks.

    Attributes:
        plan: role -> fail points of the task about to start ("" for none).
        env: of the task about to start, over the zygote's.
        task_ended: called with each task that ended.
        task_stopped: called with each task that was paused.
    """

    plan: Callable[[str], str] = lambda role: ""
    env: Mapping[str, str] = field(default_factory=dict)
    task_ended: Callable[[Child], None] = lambda child: None
    task_stopped: Callable[[Child], None] = lambda child: None


class AirflowStandIn:
    """Airflow, small. Close it.

    Args:
        dags: ids of the DAGs that it has.
        slots: tasks at the same time.
    """

    def __init__(self, dags: tuple[str, ...], *, slots: int = 4) -> None:
        self.paused = dict.fromkeys(dags, False)
        self.runs: dict[str, Run] = {}
        self.posted: list[float] = []
        self.chaos = Chaos()
        self.zygote: Zygote | None = None
        self._slots = slots
        self._ready: deque[Run] = deque()
        self._busy: set[str] = set()
        self._lock = threading.RLock()
        self._token = "token-of-the-stand-in"
        self.server = Served(
            Starlette(
                routes=[
                    Route("/auth/token", self._login, methods=["POST"]),
                    Route("/api/v2/dags", self._dags),
                    Route("/api/v2/dags/{dag_id}/dagRuns", self._trigger, methods=["POST"]),
                    Route("/api/v2/dags/{dag_id}/dagRuns/{run_id}", self._run),
                ]
            )
        )
        self.url = self.server.url

    def close(self) -> None:
        """Stop answering; the tasks end with their parent."""
        self.zygote = None
        self.server.close()

    @property
    def running(self) -> int:
        """Tasks that are under way or wait for a slot."""
        with self._lock:
            return len(self._busy) + len(self._ready)

    # --- the API ------------------------------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        if (await request.json()).get("password") != PASSWORD:
            return JSONResponse({"detail": "Invalid credentials"}, 401)
        return JSONResponse({"access_token": self._token}, 201)

    async def _dags(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        found = [{"dag_id": i, "is_paused": paused, "has_import_errors": False} for i, paused in self.paused.items()]
        offset, limit = (int(request.query_params.get(name, 0)) for name in ("offset", "limit"))
        return JSONResponse({"dags": found[offset : offset + limit], "total_entries": len(found)})

    async def _trigger(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        dag_id, body = request.path_params["dag_id"], await request.json()
        if dag_id not in self.paused:
            return JSONResponse({"detail": "not found"}, 404)
        run_id = body["dag_run_id"]
        with self._lock:
            if run_id in self.runs:
                return JSONResponse({"detail": "Unique constraint violation"}, 409)
            self.runs[run_id] = Run(dag_id, run_id)
            self.posted.append(time.monotonic())
            self._ready.append(self.runs[run_id])
        self._start_tasks()
        return JSONResponse({"dag_run_id": run_id, "dag_id": dag_id, "state": "queued"})

    async def _run(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        run = self.runs.get(request.path_params["run_id"])
        if run is None:
            return JSONResponse({"detail": "not found"}, 404)
        return JSONResponse({"dag_run_id": run.run_id, "dag_id": run.dag_id, "state": run.state})

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return JSONResponse({"detail": "Invalid JWT"}, 401)
        return None

    # --- the executor -------------------------------------------------------------------------------------------------

    def _start_tasks(self) -> None:
        with self._lock:
            while self.zygote is not None and self._ready and len(self._busy) < self._slots:
                run = self._ready.popleft()
                self._busy.add(run.run_id)
                run.state = "running"
                run.tries += 1
                run.child = self.zygote.fork(
                    TASK,
                    run=run.run_id,
                    plan=self.chaos.plan(TASK),
                    env=self.chaos.env,
                    on_end=self._ended,
                    on_stop=self._stopped,
                )

    def _stopped(self, child: Child) -> None:
        """A worker that gives no heartbeat is thought dead after a while; it may come back all the same."""
        self.chaos.task_stopped(child)
        threading.Timer(_HEARTBEAT_TIMEOUT, self._over, (child, None)).start()

    def _ended(self, child: Child) -> None:
        self.chaos.task_ended(child)
        self._over(child, child.status)

    def _over(self, child: Child, status: int | None) -> None:
        """A task is over for Airflow; `status` None: its worker was lost."""
        with self._lock:
            run = self.runs[child.run]
            if run.child is not child:
                return  # it came back after it was thought dead: nobody asks any more
            run.child = None
            self._busy.discard(run.run_id)
            if status in (DONE, ALL_FAILED) or run.tries >= _TRIES:
                run.state = "success" if status == DONE else "failed"
            else:
                threading.Timer(_RETRY_DELAY, self._again, (run,)).start()
        self._start_tasks()

    def _again(self, run: Run) -> None:
        with self._lock:
            self._ready.append(run)
        self._start_tasks()
