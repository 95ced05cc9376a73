"""What the ledger cannot know of the scenarios, out of the configuration and the plugins: for `ledger.overview`."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.config import Config
from pipelines.ledger.overview import Promise, Surroundings, has_room
from pipelines.models.admission import Room
from plugins.manager import Loaded


def surroundings(
    config: Config, loaded: Loaded, paused: Mapping[str, bool] | None = None, room: Room | None = None
) -> Surroundings:
    """What is brought to an overview.

    Args:
        config: routes and limits.
        loaded: the installed scenarios.
        paused: DAG -> whether it is paused (`AirflowApi.dags()`); None where Airflow was not asked.
        room: asks model servers for their queues; keep one, it remembers for a while. None not to ask.
    """
    promises = tuple(
        Promise(
            scenario=scenario.id,
            stage=scenario.stage.value,
            deadline=scenario.deadline.total_seconds(),
            share=scenario.objective,
            models=tuple(model.name for model in config.registry.route(scenario.id)),
        )
        for scenario in loaded.scenarios.values()
    )
    return Surroundings(promises, paused, config.dispatcher.max_open_runs, room.lacks if room else has_room)
