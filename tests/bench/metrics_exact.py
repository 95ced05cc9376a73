"""Are the metrics exact? 1,000 events with half of the tasks killed -9, and the exporter killed every few seconds too.

Then every counter and histogram that finished rows are folded into is held against the rows themselves, counted by
other SQL than the fold's; and no counter on any of the pages that were scraped on the way was lower than before.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from monitoring import metrics
from monitoring.metrics import le
from tests.bench.figures import Result, Say, main

CHAOS = Path(__file__).parents[1] / "chaos"
EVENTS = 1_000
#: Share of the tasks that are killed, at a spot of their way chosen by chance.
KILLED = 0.5
#: Seconds that an exporter may live.
_LIFE = 4.0

Page = dict[str, float]
"""Series as it stands on a /metrics page -> its value."""

#: The rows' own sums: (metric, its part) -> SQL that gives labels and a number. A part is "" for a counter.
_ROWS = "FROM work WHERE state IN ('written', 'stale', 'discarded')"
_WRITTEN = "FROM work WHERE state = 'written'"
#: A row in which nothing was counted may say so by a JSON null.
_OBJECT = "(CASE jsonb_typeof({0}) WHEN 'object' THEN {0} END)"
_ASKED = (
    f"FROM work, jsonb_each{_OBJECT.format('asked')} a (model, spent) WHERE state IN ('written', 'stale', 'discarded')"
)
#: Decisions on work that is finished, and of these the verdicts on drafts that were written.
_DECIDED = "FROM decisions d JOIN work w ON w.id = d.work_id WHERE state IN ('written', 'stale', 'discarded')"
_ON_DRAFTS = f"{_DECIDED} AND verdict <> 'withdrawn' AND written_at IS NOT NULL"
_MODEL = "model AS gen_ai_request_model, scenario"
TRUTH: dict[tuple[str, str], str] = {
    (metrics.WORK_FINISHED.name, ""): f"SELECT scenario, stage, state, coalesce(model, 'none') AS model, count(*) AS n"
    f" {_ROWS} GROUP BY 1, 2, 3, 4",
    (metrics.FINDINGS.name, ""): f"SELECT scenario, stage, sum(findings) AS n {_ROWS} GROUP BY 1, 2",
    (metrics.STATEMENTS_CUT.name, ""): f"SELECT scenario, stage, sum(cut_statements) AS n {_ROWS} GROUP BY 1, 2",
    (metrics.DRAFTS.name, ""): f"SELECT scenario, stage, 'created' AS outcome, sum(created) AS n {_ROWS} GROUP BY 1, 2"
    f" UNION ALL SELECT scenario, stage, 'recognised', sum(recognised) {_ROWS} GROUP BY 1, 2",
    (
        metrics.DEADLINES.name,
        "",
    ): "SELECT scenario, stage, CASE WHEN late OR state <> 'written' THEN 'missed' ELSE 'met' END"
    " AS outcome, count(*) AS n FROM work WHERE late OR state = 'written' GROUP BY 1, 2, 3",
    (metrics.EVENT_TO_DRAFT.name, "_count"): f"SELECT scenario, stage, count(*) AS n {_WRITTEN} GROUP BY 1, 2",
    (metrics.EVENT_TO_DRAFT.name, "_sum"): "SELECT scenario, stage,"
    f" sum(extract(epoch FROM written_at - received_at)) AS n {_WRITTEN} GROUP BY 1, 2",
    (metrics.EVENT_TO_RULE_DRAFT.name, "_count"): f"SELECT scenario, stage, count(*) AS n {_ROWS}"
    " AND rules_written_at IS NOT NULL GROUP BY 1, 2",
    (metrics.HOP_DURATION.name, "_count"): " UNION ALL ".join(
        f"SELECT scenario, stage, '{hop}' AS hop, count({hop}_at) AS n {_WRITTEN} GROUP BY 1, 2" for hop in metrics.HOPS
    ),
    (
        metrics.MODEL_DURATION.name,
        "_count",
    ): f"SELECT {_MODEL}, count(*) AS n {_ROWS} AND model IS NOT NULL GROUP BY 1, 2",
    (metrics.MODEL_DURATION.name, "_sum"): f"SELECT {_MODEL}, sum(model_seconds) AS n {_ROWS} AND model IS NOT NULL"
    " GROUP BY 1, 2",
    (
        metrics.MODEL_TOKENS.name,
        "_sum",
    ): f"SELECT {_MODEL}, 'input' AS gen_ai_token_type, sum(prompt_tokens) AS n {_ROWS}"
    f" AND model IS NOT NULL GROUP BY 1, 2 UNION ALL SELECT {_MODEL}, 'output', sum(completion_tokens) {_ROWS}"
    " AND model IS NOT NULL GROUP BY 1, 2",
    (
        metrics.MODEL_REQUESTS.name,
        "",
    ): f"SELECT a.model, scenario, sum((spent->>'requests')::float) AS n {_ASKED} GROUP BY 1, 2",
    (
        metrics.MODEL_SECONDS.name,
        "",
    ): f"SELECT a.model, scenario, sum((spent->>'seconds')::float) AS n {_ASKED} GROUP BY 1, 2",
    (metrics.MODEL_TOKENS_SPENT.name, ""): "SELECT a.model, scenario, 'input' AS gen_ai_token_type,"
    f" sum((spent->>'prompt_tokens')::float) AS n {_ASKED} GROUP BY 1, 2 UNION ALL SELECT a.model, scenario, 'output',"
    f" sum((spent->>'completion_tokens')::float) {_ASKED} GROUP BY 1, 2",
    (metrics.MODEL_COST.name, ""): "SELECT a.model, scenario, spent->>'currency' AS currency,"
    f" sum((spent->>'cost')::float) AS n {_ASKED} GROUP BY 1, 2, 3",
    (
        metrics.GUARD_VERDICTS.name,
        "",
    ): "SELECT scenario, g.guard, c.code, x.action, sum(x.n::text::float) AS n FROM work,"
    f" jsonb_each{_OBJECT.format('verdicts')} g (guard, codes), jsonb_each(g.codes) c (code, actions),"
    " jsonb_each(c.actions) x (action, n) WHERE state IN ('written', 'stale', 'discarded') GROUP BY 1, 2, 3, 4",
    (metrics.DECISIONS.name, ""): "SELECT w.scenario, coalesce(model, 'none') AS model, verdict,"
    f" coalesce(model_version, 'none') AS model_version, count(*) AS n {_DECIDED} AND verdict <> 'withdrawn'"
    " GROUP BY 1, 2, 3, 4",
    (metrics.DRAFT_TO_DECISION.name, "_count"): f"SELECT w.scenario, count(*) AS n {_ON_DRAFTS} GROUP BY 1",
    (metrics.DRAFT_TO_DECISION.name, "_sum"): "SELECT w.scenario,"
    f" sum(greatest(extract(epoch FROM decided_at - written_at), 0)) AS n {_ON_DRAFTS} GROUP BY 1",
    (metrics.DECISIONS_WAITING.name, ""): "SELECT scenario, count(DISTINCT (event_id, scenario_version)) AS n"
    f" {_ROWS} AND approval IS NOT NULL AND id NOT IN (SELECT d.work_id {_DECIDED}) GROUP BY 1",
    (metrics.HOOK_ERRORS.name, ""): "SELECT l.labels::jsonb->>'plugin' AS plugin, l.labels::jsonb->>'hook' AS hook,"
    " l.labels::jsonb->>'scenario' AS scenario, sum(l.n::text::float) AS n FROM work,"
    f" jsonb_each({_OBJECT.format('counted')}->'{metrics.HOOK_ERRORS.name}')"
    " l (labels, n) WHERE state IN ('written', 'stale', 'discarded') GROUP BY 1, 2, 3",
}


def bench(quick: bool, say: Say) -> Result:
    """All of it, in the house of the chaos tests."""
    sys.path.insert(0, str(CHAOS))
    from account import Outcome, drain
    from cases import NOTE, TRIAGE
    from flow import Flow
    from house import House

    size = 100 if quick else EVENTS
    result = Result("metrics_exact")
    killer = _Killer()
    with House(say=say) as house:
        exporter = _Exporter(house.files[0], house.kept.ports["exporter"])
        house.plan, house.ended = killer.plan, killer.ended
        chance = random.Random(6)
        cases = [house.cases.one(TRIAGE if chance.random() < 0.6 else NOTE) for _ in range(size)]
        try:
            flow = Flow(house, at_once=60, cases=iter(cases))
            outcome = Outcome("metrics exact")
            while len(flow.cases) < size:
                time.sleep(1)
                say(f"{len(flow.cases)} events sent, {killer.killed} of {killer.tasks} tasks killed")
            flow.stop()
            drain(house, cases, outcome, since=time.monotonic(), patience=300)
            killed, tasks = killer.killed, killer.tasks
            unfinished = sum(
                1 for rows in house.states([c.event_id for c in cases]).values() for r in rows if r[1] != "written"
            )
            page = exporter.last_page()
        finally:
            exporter.close()
        differences = compare(house.engine, page)
    result.add("events", size, "")
    result.add("tasks that ended", tasks, "")
    result.hold("share of them killed -9", killed / max(tasks, 1), "", at_least=0.4 if quick else 0.45)
    result.add("rows that are not written", unfinished, "")
    result.add("exporters killed -9", exporter.kills, "")
    result.add("pages scraped", exporter.pages, "")
    result.hold("counters that ever went back", len(exporter.back), "series", at_most=0)
    result.hold("series compared", differences.compared, "", at_least=30)
    result.hold("difference between counters and rows, all together", differences.total, "", at_most=0)
    result.hold("difference between sums of seconds and rows", differences.seconds, "s", at_most=0.001)
    result.text = "".join(f"  {line}\n" for line in (*exporter.back, *differences.lines))
    return result


class _Killer:
    """Plans the end of each task while fewer than half were killed: some pass no spot of theirs, or not so often."""

    def __init__(self) -> None:
        from pipelines.fail_points import NAMES

        self._spots = sorted(name for name in NAMES if name.startswith("runner."))
        self._chance = random.Random(6)
        self._lock = threading.Lock()
        self.tasks = self.killed = 0

    def plan(self, role: str) -> str:
        with self._lock:
            if role in ("gateway", "dispatcher") or self.killed > KILLED * self.tasks:
                return ""
            return f"{self._chance.choice(self._spots)}@{self._chance.choice((1, 1, 2, 3))}"

    def ended(self, child: Any) -> None:
        if child.role not in ("gateway", "dispatcher"):
            with self._lock:
                self.tasks += 1
                self.killed += child.status == -signal.SIGKILL


class _Exporter:
    """The real exporter, scraped twice a second and killed every few: `back` names the series that fell."""

    def __init__(self, config: Path, port: int) -> None:
        self._env = {**os.environ, "CARELOOM_CONFIG": str(config)}
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._over = threading.Event()
        self._page: Page = {}
        self._highest: Page = {}
        self.back: list[str] = []
        self.kills = self.pages = 0
        self._process = self._start()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._scrape, self._kill)]
        for thread in self._threads:
            thread.start()

    def last_page(self) -> Page:
        """A page of an exporter that is left alone and has counted all that is finished."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(1.0)  # longer than a snapshot is kept for
            if self._look() and self._page.get("careloom_work_unfolded_items") == 0:
                return self._page
        raise TimeoutError("the exporter did not count what is finished within 60 s")

    def close(self) -> None:
        self._over.set()
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-m", "monitoring.exporter")
        return subprocess.Popen(command, env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _kill(self) -> None:
        seen = self.pages
        while not self._over.wait(_LIFE):
            if self.pages == seen:  # it has not answered yet: starting takes a while on a busy machine
                continue
            self._process.kill()
            self._process.wait()
            self.kills += 1
            seen = self.pages
            self._process = self._start()

    def _scrape(self) -> None:
        while not self._over.wait(0.4):
            self._look()

    def _look(self) -> bool:
        """Whether there is a new page; an exporter that is just starting has none."""
        try:
            with urllib.request.urlopen(self._url, timeout=10) as answer:
                page = read(answer.read().decode())
        except OSError:
            return False
        if page.get("careloom_ledger_up") != 1:
            return False
        self.pages += 1
        for series, value in page.items():
            if is_folded(series):
                if value < self._highest.get(series, 0.0):
                    self.back.append(f"{series} fell from {self._highest[series]} to {value}")
                self._highest[series] = max(value, self._highest.get(series, 0.0))
        self._page = page
        return True


def read(page: str) -> Page:
    """Series -> value, of a /metrics page."""
    found = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


def is_folded(series: str) -> bool:
    """Whether a series is of a counter or a histogram that never goes back: what is read from the ledger."""
    name = re.sub(r"_(bucket|sum|count)$", "", series.partition("{")[0])
    metric = metrics.LEDGER.get(name) or metrics.LEDGER.get(series.partition("{")[0])
    return metric is not None and metric.kind != "gauge"


class Differences:
    """What `compare` found."""

    def __init__(self) -> None:
        self.compared = 0
        self.total = 0.0
        self.seconds = 0.0
        self.lines: list[str] = []

    def note(self, series: str, shown: float, true: float, *, seconds: bool) -> None:
        """One series."""
        self.compared += 1
        difference = abs(shown - true)
        if seconds:
            self.seconds += difference
        else:
            self.total += difference
        if difference > (0.001 if seconds else 0):
            self.lines.append(f"{series}: shown {shown:g}, rows {true:g}")


def compare(engine: Engine, page: Page) -> Differences:
    """The page against the rows, series by series; a series that either side alone has counts as 0 on the other."""
    found = Differences()
    with engine.connect() as connection:
        for (name, part), statement in TRUTH.items():
            true = {
                _series(name, part, row): float(row["n"] or 0) for row in connection.execute(text(statement)).mappings()
            }
            of = f"{name}{part}{{"
            shown = {series: value for series, value in page.items() if series.startswith(of)}
            floats = name in (metrics.MODEL_SECONDS.name, metrics.MODEL_COST.name)
            seconds = floats or (part == "_sum" and "token" not in name)
            for series in sorted(true.keys() | shown.keys()):
                found.note(series, shown.get(series, 0.0), true.get(series, 0.0), seconds=seconds)
    # every bucket, for the histogram that objectives are judged by
    _compare_buckets(engine, page, found)
    return found


def _compare_buckets(engine: Engine, page: Page, found: Differences) -> None:
    metric = metrics.EVENT_TO_DRAFT
    with engine.connect() as connection:
        for bound in metric.buckets:
            statement = text(
                f"SELECT scenario, stage, :le AS le, count(*) AS n {_WRITTEN}"
                " AND extract(epoch FROM written_at - received_at)::float <= :bound GROUP BY 1, 2"
            )
            true = {
                _series(metric.name, "_bucket", row): float(row["n"])
                for row in connection.execute(statement, {"le": le(bound), "bound": bound}).mappings()
            }
            of = f'{metric.name}_bucket{{le="{le(bound)}"'
            shown = {series: value for series, value in page.items() if series.startswith(of)}
            for series in sorted(true.keys() | shown.keys()):
                found.note(series, shown.get(series, 0.0), true.get(series, 0.0), seconds=False)


def _series(name: str, part: str, row: Any) -> str:
    labels = {key: value for key, value in row.items() if key != "n"}
    if name.startswith("gen_ai_"):
        labels |= metrics.GEN_AI
    shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{part}{{{shown}}}"


if __name__ == "__main__":
    sys.exit(main("metrics_exact", bench))
