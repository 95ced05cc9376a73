"""What the page shows to one person: what Airflow lets them see, in the words of the clinic's operators.

Ids, counts, times and classes of error; never the text of an error, and never a patient's key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from monitoring.airflow_page import runbooks
from monitoring.airflow_page.access import Visitor, refuse
from monitoring.airflow_page.house import Inside, Seen, asking
from pipelines.errors import ErrorClass, PoisonReason
from pipelines.failures.policy import POLICIES
from pipelines.ledger.breaking import Breaker
from pipelines.ledger.dead_letters import Chosen, PoisonRow
from pipelines.ledger.overview import Condition, Overview, ScenarioNow, Switch, Timeliness, Wait, Why
from plugins.scenario import Text

#: Dead letters of each kind that are shown; all are counted, and all can be decided on at once.
SHOWN = 100

CONDITIONS = {
    Condition.RUNNING: Text(en="running", zh="运行中"),
    Condition.PAUSED: Text(en="paused in Airflow", zh="已在 Airflow 中暂停"),
    Condition.OFF: Text(en="switched off", zh="已关闭"),
    Condition.NO_DAG: Text(en="no DAG that can run", zh="无可运行的 DAG"),
    Condition.NOT_INSTALLED: Text(en="not installed", zh="未安装"),
}
WHYS = {
    Why.EVERYTHING_OFF: Text(en="everything is switched off", zh="全部已关闭"),
    Why.SCENARIO_OFF: Text(en="its scenario is switched off", zh="场景已关闭"),
    Why.NOT_INSTALLED: Text(en="its scenario is not installed", zh="场景未安装"),
    Why.NO_DAG: Text(en="Airflow has no DAG of it that can run", zh="Airflow 中没有可运行的 DAG"),
    Why.PAUSED: Text(en="its DAG is paused in Airflow", zh="DAG 已暂停"),
    Why.BEHIND_PARKED: Text(en="behind a dead letter of the same patient", zh="同一患者之前有死信"),
    Why.DEPENDENCY_DOWN: Text(en="a dependency is down", zh="依赖不可用"),
    Why.MODEL_OFF: Text(en="its model is switched off", zh="模型已关闭"),
    Why.BACKOFF: Text(en="failed, tried again later", zh="失败，稍后重试"),
    Why.BEHIND_RUNNING: Text(en="behind an earlier one of the same patient, under way", zh="同一患者的前一项处理中"),
    Why.BEHIND_WAITING: Text(en="behind an earlier one of the same patient, waiting", zh="同一患者的前一项等待中"),
    Why.AIRFLOW_DOWN: Text(en="Airflow takes no runs", zh="Airflow 不接受运行"),
    Why.RUNS_FULL: Text(en="as many runs as may be are under way", zh="并行运行已满"),
    Why.MODEL_FULL: Text(en="its model has no room", zh="模型已满载"),
    Why.READY: Text(en="the next run takes it", zh="等待下一次运行"),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are looked at.

    Attributes:
        scenario: id; "" for any.
        kind: class of failed work, or reason of a record that is no event; "" for any.
    """

    scenario: str = ""
    kind: str = ""

    @property
    def reason(self) -> PoisonReason | None:
        """The reason of records; None for any."""
        return PoisonReason(self.kind) if self.kind in set(PoisonReason) else None

    @property
    def shows_poison(self) -> bool:
        """Whether it lets any record through: they belong to no scenario."""
        return not self.scenario and (not self.kind or self.reason is not None)

    @property
    def words(self) -> dict[str, str]:
        """As a line of an audit log has it: what is known alone, never what somebody typed."""
        kind = self.kind if self.kind in {*ErrorClass, *PoisonReason} else ""
        return {"class": kind} if kind else {}

    def work(self, among: Collection[str]) -> Chosen | None:
        """The parked work of these scenarios that it lets through; None for none."""
        if self.kind and self.kind not in set(ErrorClass):
            return None
        return Chosen(self.scenario or None, ErrorClass(self.kind) if self.kind else None, among)


@dataclass(frozen=True, slots=True)
class ScenarioLine:
    """One scenario.

    Attributes:
        title: None for one that is not installed.
        switch: who has switched it off; None where it is on.
        has_dag: whether Airflow may have something to be linked to.
    """

    standing: ScenarioNow
    title: Text | None
    condition: Text
    hour: Timeliness
    day: Timeliness
    switch: Switch | None
    editable: bool

    @property
    def has_dag(self) -> bool:
        """Whether there is a DAG to look at."""
        return self.standing.condition not in (Condition.NOT_INSTALLED, Condition.NO_DAG)

    @property
    def misses(self) -> bool:
        """Whether its objective is not met in the last hour."""
        share, promise = self.hour.share, self.standing.promise
        return share is not None and promise is not None and share < promise.share


@dataclass(frozen=True, slots=True)
class WaitLine:
    """Why some work waits."""

    wait: Wait
    why: Text
    breaker: Breaker | None
    runbook: str


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model."""

    name: str
    stand_in: bool
    breaker: Breaker | None
    switch: Switch | None


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters of one kind: the first of them, and how many there are.

    Attributes:
        editable: how many of them this person may decide on.
    """

    rows: Sequence[Any]
    number: int
    editable: int


@dataclass(frozen=True, slots=True)
class Shown:
    """All of the page."""

    at: datetime
    who: str
    scenarios: Sequence[ScenarioLine]
    waits: Sequence[WaitLine]
    down: Sequence[tuple[Breaker, str]]
    models: Sequence[ModelLine]
    everything: Switch | None
    letters: Letters
    poison: Letters
    chosen: Filter
    classes: Sequence[str]
    remedies: Mapping[str, str]
    edits: frozenset[str]
    edits_all: bool

    @property
    def waiting(self) -> int:
        """Pieces of work in no run."""
        return sum(line.standing.waiting for line in self.scenarios)

    @property
    def running(self) -> int:
        """Pieces of work in a run."""
        return sum(line.standing.running for line in self.scenarios)

    @property
    def parked(self) -> int:
        """Dead letters of work, whatever the filter shows."""
        return sum(line.standing.parked for line in self.scenarios)


def scenarios_of(inside: Inside, now: Overview) -> frozenset[str]:
    """Every scenario that is installed or has work in the ledger."""
    return frozenset(inside.loaded.scenarios) | {standing.scenario for standing in now.scenarios}


def view(inside: Inside, seen: Seen, visitor: Visitor, chosen: Filter) -> Shown:
    """What this person is shown.

    Raises:
        HTTPException: 403, they may look at no DAG of careloom.
        Unavailable: the ledger does not answer.
    """
    known = scenarios_of(inside, seen.now)
    readable = visitor.readable(known) if visitor.reads_dags() else frozenset()
    if not readable:
        raise refuse("This page is for who may look at careloom's DAGs. Ask who runs this Airflow.")
    editable = visitor.editable(readable) if visitor.edits_dags() else frozenset()
    edits_all = editable == known
    off = {(switch.kind, switch.name): switch for switch in seen.now.switches}
    breakers = {breaker.dependency: breaker for breaker in seen.now.breakers}
    return Shown(
        at=seen.now.at,
        who=visitor.name,
        scenarios=[
            _scenario(inside, seen, standing, off.get(("scenario", standing.scenario)), standing.scenario in editable)
            for standing in seen.now.scenarios
            if standing.scenario in readable
        ],
        waits=[_wait(wait, breakers) for wait in seen.now.waits if wait.scenario in readable],
        down=[(breaker, runbooks.of_dependency(breaker.dependency)) for breaker in seen.now.down],
        models=[
            ModelLine(model.name, model.stand_in, breakers.get(f"model:{model.name}"), off.get(("model", model.name)))
            for model in inside.config.registry.models
        ],
        everything=off.get(("everything", "")),
        letters=_letters(inside, chosen, readable, editable),
        poison=_poison(inside, chosen, edits_all),
        chosen=chosen,
        classes=sorted({parked.error_class for parked in seen.now.parked if parked.scenario in readable})
        + sorted(seen.now.poison),
        remedies={error_class.value: policy.remedy for error_class, policy in POLICIES.items()},
        edits=editable,
        edits_all=edits_all,
    )


def _scenario(inside: Inside, seen: Seen, standing: ScenarioNow, switch: Switch | None, editable: bool) -> ScenarioLine:
    scenario = inside.loaded.scenarios.get(standing.scenario)
    return ScenarioLine(
        standing=standing,
        title=scenario.title if scenario else None,
        condition=CONDITIONS[standing.condition],
        hour=seen.hour.get(standing.scenario, Timeliness()),
        day=seen.day.get(standing.scenario, Timeliness()),
        switch=switch,
        editable=editable,
    )


def _wait(wait: Wait, breakers: Mapping[str, Breaker]) -> WaitLine:
    breaker = breakers.get(wait.what) if wait.why is Why.DEPENDENCY_DOWN else None
    return WaitLine(wait, WHYS[wait.why], breaker, runbooks.of(wait))


def _letters(inside: Inside, chosen: Filter, readable: frozenset[str], editable: frozenset[str]) -> Letters:
    shown, mine = chosen.work(readable), chosen.work(editable)
    if shown is None or mine is None:
        return Letters((), 0, 0)
    with asking():
        rows = inside.ledger.dead_letters(shown, size=SHOWN)
        number = len(rows) if len(rows) < SHOWN else inside.ledger.dead_letter_count(shown)
        return Letters(rows, number, number if editable == readable else inside.ledger.dead_letter_count(mine))


def _poison(inside: Inside, chosen: Filter, editable: bool) -> Letters:
    if not chosen.shows_poison:
        return Letters((), 0, 0)
    with asking():
        rows: list[PoisonRow] = list(islice(inside.ledger.each_poison(chosen.reason), SHOWN))
        number = len(rows) if len(rows) < SHOWN else inside.ledger.poison_count(chosen.reason)
    return Letters(rows, number, number if editable else 0)
