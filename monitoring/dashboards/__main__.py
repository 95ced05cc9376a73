"""Writes json/ from the sources beside it: `python -m monitoring.dashboards`."""

from __future__ import annotations

from pathlib import Path

from monitoring.dashboards import airflow, delivery, journey, models, quality, scenario
from monitoring.dashboards.grafana import as_json

BOARDS = (journey.BOARD, scenario.BOARD, delivery.BOARD, models.BOARD, airflow.BOARD, quality.BOARD)
JSON = Path(__file__).with_name("json")


def main() -> None:
    """Write one file a dashboard."""
    JSON.mkdir(exist_ok=True)
    for board in BOARDS:
        (JSON / f"{board.uid}.json").write_text(as_json(board), encoding="utf-8")


if __name__ == "__main__":
    main()
