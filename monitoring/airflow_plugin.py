"""Puts the careloom page into Airflow's own UI: an entry in its navigation, and the application behind it.

Loaded by entry point (`airflow.plugins`) in every process of Airflow, so it imports nothing of its own: the page is
made when the API server asks for it, and tasks never pay for it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/careloom"


class CareloomPlugin(AirflowPlugin):  # type: ignore[misc]  # Airflow is not type-checked here
    """What Airflow is told; see Airflow's "Plugins" page on `fastapi_apps` and `external_views`."""

    name = "careloom"
    # Relative to the UI's <base>, so that it is right behind whatever path Airflow is served under.
    external_views = [  # noqa: RUF012 as Airflow declares it
        {
            "name": "careloom",
            "href": f".{PREFIX}/",
            "destination": "nav",
            "url_route": "careloom",
            "icon": f".{PREFIX}/static/icon.svg",
            "nav_top_level": True,
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The page, imported when it is asked for."""
        from monitoring.airflow_page.app import application

        return [{"name": "careloom", "url_prefix": PREFIX, "app": application()}]
