"""No panel of any dashboard is empty: every query is run against what Prometheus kept of the demo."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is a development dependency")

from fhir_adapters.approval import asks_for_approval
from monitoring.dashboards.__main__ import BOARDS
from monitoring.dashboards.description import Board, Panel
from pipelines.stack import statsd
from pipelines.stack.kept_metrics import Answers, Kept
from plugins.manager import load
from tests.end_to_end.demo import Run

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

#: Panels that a demo leaves without data, by (dashboard, row or panel), and why. Nothing else may be empty.
MAY_BE_EMPTY_WITHOUT_VLLM = {("careloom-models", "vLLM"): "only vLLM speaks vLLM's metrics; a stand-in answers here"}
#: Queries, by (panel, legend), that a demo may be too short for.
MAY_BE_EMPTY = {("Late, by window", "3 d"): "the recording rule for three days is judged once a minute only"}
#: What one scenario chosen alone may not have.
MAY_BE_EMPTY_OF_ONE = {
    **MAY_BE_EMPTY,
    ("Event to draft by rules alone", "95 of 100"): "not every scenario has rules that write before the model is asked",
}
#: Scenarios of which the demo has an event and a draft, one for each stage: chosen alone, they fill their dashboard.
CHOSEN = ("pre_visit.triage", "in_visit.admission_note", "post_visit.discharge_summary")

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


class Demo:
    """What a demo's Prometheus kept, between the first and the last scrape of the exporter."""

    def __init__(self, url: str, run: Run) -> None:
        self.url = url
        self.begin, self.end = Answers(url).scraped(run.began, run.ended)

    def empty(self, panels: Iterable[Panel], chosen: dict[str, str] | None = None) -> set[tuple[str, str]]:
        """Panel and legend of the queries that would draw nothing."""
        asked = Answers(self.url, chosen)
        return {
            (panel.title, legend)
            for panel in panels
            for legend, query in panel.queries.items()
            if not self._numbers(asked, panel, query)
        }

    def _numbers(self, asked: Answers, panel: Panel, query: str) -> list[float]:
        found = asked.over_time(query, self.begin, self.end) if panel.kind == "lines" else asked.at(query, self.end)
        points = [point for series in found for point in (series.get("values") or [series["value"]])]
        return [number for _, text in points if not math.isnan(number := float(text))]


@pytest.fixture(scope="module")
def demo(first: Run) -> Iterator[Demo]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    assert first.code == 0, first.errors[-3000:]
    with Kept(first.state / "prometheus" / "data") as url:
        yield Demo(url, first)


def shown(board: Board, model: tuple[str, ...]) -> list[Panel]:
    """The panels that must not be empty."""
    if board.uid == "careloom-airflow" and statsd.missing():
        pytest.skip(str(statsd.missing()))
    allowed = MAY_BE_EMPTY_WITHOUT_VLLM if model else {}
    return [panel for row in board.rows for panel in row.panels if (board.uid, row.title) not in allowed]


@each_board
def test_no_query_of_a_dashboard_is_empty_after_a_demo(board: Board, demo: Demo, model: tuple[str, ...]) -> None:
    assert demo.empty(shown(board, model)) - set(MAY_BE_EMPTY) == set()


def test_what_may_be_empty_is_there() -> None:
    rows = {(board.uid, row.title) for board in BOARDS for row in board.rows}
    assert rows > set(MAY_BE_EMPTY_WITHOUT_VLLM)
    queries = {(panel.title, legend) for board in BOARDS for panel in board.panels for legend in panel.queries}
    assert queries > set(MAY_BE_EMPTY_OF_ONE)


def test_the_variables_offer_every_installed_scenario_and_stage(demo: Demo) -> None:
    asked = Answers(demo.url)
    scenarios = load().scenarios
    assert asked.values_of("scenario", "careloom_scenario_info", demo.end) == sorted(scenarios)
    for stage in ("pre_visit", "in_visit", "post_visit"):
        offered = asked.values_of("scenario", f'careloom_scenario_info{{stage=~"{stage}"}}', demo.end)
        assert offered == sorted(name for name in scenarios if name.startswith(f"{stage}."))


def test_the_exporter_showed_every_decision_that_was_put_by_its_verdict_and_took_all_of_them(
    demo: Demo, first: Run
) -> None:
    asked = Answers(demo.url)
    shown = asked.at("sum by (verdict) (careloom_decisions_total)", demo.end)
    assert {one["metric"]["verdict"]: float(one["value"][1]) for one in shown} == first.report["decided"]
    [untaken] = asked.at("sum(careloom_decisions_not_taken_total)", demo.end)
    assert float(untaken["value"][1]) == 0
    [waiting] = asked.at("sum(careloom_decisions_waiting_items)", demo.end)
    assert float(waiting["value"][1]) == sum(
        asks_for_approval(draft) and draft["status"] == "requested" for draft in first.drafts
    )


@pytest.mark.parametrize("scenario", CHOSEN)
def test_one_scenario_that_is_chosen_fills_its_dashboard(scenario: str, demo: Demo) -> None:
    chosen = {"scenario": scenario, "stage": scenario.partition(".")[0]}
    [board] = [one for one in BOARDS if one.one_scenario]
    assert demo.empty(board.panels, chosen) - set(MAY_BE_EMPTY_OF_ONE) == set()


@each_board
def test_a_choice_leaves_out_what_was_not_chosen(board: Board, demo: Demo) -> None:
    asked = Answers(demo.url, {"scenario": "pre_visit.triage", "stage": "pre_visit"})
    for panel in board.panels:
        for query in panel.queries.values():
            found = asked.at(query, demo.end) if "$scenario" in query else []
            names = {series["metric"].get("scenario", series["metric"].get("dag_id", "none")) for series in found}
            assert names <= {"pre_visit.triage", "none"}, panel.title
