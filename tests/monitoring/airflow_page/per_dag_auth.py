"""An auth manager that decides DAG by DAG, as a hospital's does: `pre` may see and edit the pre-visit DAGs alone."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class PerDag(SimpleAuthManager):
    """The simple one, narrowed: `pre` sees pre-visit DAGs alone, `half` edits those alone, `nobody` sees none."""

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        mine = details is None or details.id is None or details.id.startswith("pre_visit.")
        if user.username == "nobody" or (user.username == "pre" and not mine):
            return False
        if user.username == "half" and method != "GET" and not mine:
            return False
        return bool(super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details))
