"""Who asks, and what Airflow lets them do: the only module of the page that speaks with Airflow.

Reading needs what reading a DAG needs, acting what editing it needs, decided DAG by DAG by the auth manager that this
Airflow has. Without a login: 401; without any DAG to read: 403.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.tokens import get_signing_key
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi import Depends, HTTPException, status
from sqlalchemy import select


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody whom Airflow knows.

    Attributes:
        user: as Airflow has them.
    """

    user: Any

    @property
    def name(self) -> str:
        """As Airflow calls them in its audit log."""
        return str(self.user.get_name())

    def readable(self, scenarios: Collection[str]) -> frozenset[str]:
        """Those whose DAGs they may look at."""
        return self._permitted(scenarios, "GET")

    def editable(self, scenarios: Collection[str]) -> frozenset[str]:
        """Those whose DAGs they may change."""
        return self._permitted(scenarios, "PUT")

    def reads_dags(self) -> bool:
        """Whether they may look at DAGs at all."""
        return bool(get_auth_manager().is_authorized_dag(method="GET", user=self.user))

    def edits_dags(self) -> bool:
        """Whether they may change DAGs, without one being named."""
        return bool(get_auth_manager().is_authorized_dag(method="PUT", user=self.user))

    def _permitted(self, scenarios: Collection[str], method: str) -> frozenset[str]:
        teams = DagModel.get_dag_id_to_team_name_mapping(list(scenarios))
        by_team: dict[str | None, set[str]] = {}
        for scenario in scenarios:
            by_team.setdefault(teams.get(scenario), set()).add(scenario)
        permitted: set[str] = set()
        for team, dag_ids in by_team.items():
            permitted |= get_auth_manager().filter_authorized_dag_ids(
                dag_ids=dag_ids, user=self.user, method=method, team_name=team
            )
        return frozenset(permitted)


def _visitor(user: GetUserDep) -> Visitor:
    """Raises HTTPException: 401 by Airflow's own dependency where nobody is logged in."""
    return Visitor(user)


VisitorDep = Annotated[Visitor, Depends(_visitor)]


def refuse(what: str) -> HTTPException:
    """403, with what is lacking."""
    return HTTPException(status.HTTP_403_FORBIDDEN, what)


def runnable_dags(scenarios: Collection[str]) -> Mapping[str, bool]:
    """DAG that Airflow can run -> whether it is paused."""
    columns = (DagModel.dag_id, DagModel.is_paused)
    can_run = (DagModel.is_stale.is_(False), DagModel.has_import_errors.is_not(True))
    with create_session(scoped=False) as session:
        rows = session.execute(select(*columns).where(DagModel.dag_id.in_(list(scenarios)), *can_run))
        return {row.dag_id: bool(row.is_paused) for row in rows}


def note(visitor: Visitor, event: str, what: Mapping[str, Any], scenario: str | None = None) -> None:
    """Write a line into Airflow's audit log. Ids and counts alone: reasons are people's words, and stay in the ledger.

    Args:
        visitor: who did it.
        event: what was done.
        what: to what.
        scenario: whose DAG's audit log shows it too.
    """
    with create_session(scoped=False) as session:
        line = Log(
            event=f"careloom.{event}", owner=visitor.name, owner_display_name=visitor.name, extra=json.dumps(dict(what))
        )
        line.dag_id = scenario
        session.add(line)


def own_origin() -> str | None:
    """Scheme and host under which people reach this Airflow, as it is configured (`[api] base_url`)."""
    parts = urlsplit(conf.get("api", "base_url", fallback="") or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else None


def signing_key() -> str:
    """The secret that every worker of this API server has."""
    return str(get_signing_key("api", "secret_key"))


def login_url() -> str:
    """Where one logs in."""
    return str(get_auth_manager().get_url_login())
