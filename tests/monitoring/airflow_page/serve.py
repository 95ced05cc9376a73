"""What Airflow's API server does for a plugin's page, by Airflow's own code: run by the tests in a process of its own.

    python serve.py PORT [whole]    with AIRFLOW_HOME, AIRFLOW__*, CARELOOM_CONFIG and this folder on PYTHONPATH

Plugins, auth manager, middlewares and their order are those of `airflow.api_fastapi.app.create_app`. Only Airflow's own
REST API and UI are left out, which take most of its start; `/probe` says what they would, and `whole` has them. The
database is SQLite, made from Airflow's models; one DAG is there for each scenario that is installed, but for one, and
one is paused.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

ABSENT, PAUSED = "post_visit.adherence_risk", "in_visit.record_qc"


def main(port: int, whole: bool) -> None:
    from airflow.utils import db

    db.initdb()
    _dags()
    from monitoring.airflow_page import house

    if whole:
        from airflow.api_fastapi.app import create_app

        uvicorn.run(create_app("core"), host="127.0.0.1", port=port, log_level="warning")
        return
    house.KEEP = house.KEEP_HOUR = house.KEEP_DAY = house.KEEP_FAILURE = 0.0  # a test sees what it has just done
    uvicorn.run(_application(), host="127.0.0.1", port=port, log_level="warning")


def _application() -> FastAPI:
    from airflow import plugins_manager
    from airflow.api_fastapi.app import init_auth_manager, init_plugins
    from airflow.api_fastapi.core_api.app import init_config, init_middlewares
    from airflow.api_fastapi.core_api.datamodels.plugins import PluginResponse
    from airflow.models.log import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    app = FastAPI()
    init_plugins(app)
    init_auth_manager(app)

    @app.get("/probe/plugins")
    def plugins() -> dict[str, Any]:
        found = [PluginResponse.model_validate(plugin) for plugin in plugins_manager.get_plugin_info()]
        return {"plugins": found, "errors": plugins_manager.get_import_errors()}

    @app.get("/probe/log")
    def log() -> list[dict[str, Any]]:
        with create_session() as session:
            lines = session.scalars(select(Log).order_by(Log.id))
            return [
                {"event": line.event, "owner": line.owner, "dag_id": line.dag_id, "extra": line.extra} for line in lines
            ]

    init_middlewares(app)
    init_config(app)
    return app


def _dags() -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    from plugins import manager

    with create_session() as session:
        session.add(DagBundleModel(name="dags-folder"))
        session.flush()
        for scenario in manager.load().scenarios:
            if scenario != ABSENT:
                paused = scenario == PAUSED
                session.add(DagModel(dag_id=scenario, bundle_name="dags-folder", is_paused=paused, is_stale=False))


if __name__ == "__main__":
    main(int(sys.argv[1]), "whole" in sys.argv)
