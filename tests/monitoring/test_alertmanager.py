"""The example of an Alertmanager configuration: valid, sends each alert to its reader, and one fault pages once."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
EXAMPLE = MONITORING / "alertmanager" / "alertmanager.example.yml"
CONFIG: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for file in sorted((MONITORING / "alerts").glob("*.yml"))
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}


def amtool(*arguments: str | Path) -> str:
    if shutil.which("amtool") is None:
        pytest.skip("amtool is not installed (Debian: apt-get install prometheus-alertmanager)")
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_takes_the_configuration() -> None:
    assert "SUCCESS" in amtool("check-config", EXAMPLE)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_sent_to_whom_its_severity_says(alert: str) -> None:
    severity = ALERTS[alert]["labels"]["severity"]
    receiver = {"critical": "on-call", "warning": "tickets", "none": "dead-mans-switch"}[severity]
    labels = (f"alertname={alert}", f"severity={severity}", "scenario=pre_visit.triage")
    amtool("config", "routes", "test", f"--config.file={EXAMPLE}", f"--verify.receivers={receiver}", *labels)


def names(matchers: list[str]) -> set[str]:
    """The alerts that an inhibition's matchers mean."""
    pattern = next(m for m in matchers if m.startswith("alertname"))
    pattern = re.sub(r'^alertname\s*=~?\s*|"', "", pattern)
    return {alert for alert in ALERTS if re.fullmatch(pattern, alert)}


def words(matchers: list[str]) -> list[str]:
    """The names that an inhibition's matchers spell out."""
    return re.findall(r"Careloom\w+(?:\.\*)?", " ".join(matchers))


@pytest.mark.parametrize("rule", CONFIG["inhibit_rules"], ids=lambda rule: rule["source_matchers"][0])
def test_an_inhibition_is_of_alerts_that_exist(rule: dict[str, Any]) -> None:
    for matchers in (rule["source_matchers"], rule["target_matchers"]):
        assert names(matchers)
        for word in words(matchers):
            assert any(re.fullmatch(word, alert) for alert in ALERTS), word


def test_inhibitions_are_a_tree_in_which_no_alert_silences_its_own_cause() -> None:
    below = {alert: set[str]() for alert in ALERTS}
    for rule in CONFIG["inhibit_rules"]:
        for source in names(rule["source_matchers"]):
            below[source] |= names(rule["target_matchers"])

    def reach(alert: str) -> set[str]:
        found: set[str] = set()
        queue = [alert]
        while queue:
            for one in below[queue.pop()] - found:
                found.add(one)
                queue.append(one)
        return found

    assert [alert for alert in ALERTS if alert in reach(alert)] == []


@pytest.mark.parametrize("alert", ["CareloomEventsUnaccounted", "CareloomBrokerLostRecords", "CareloomPoisonRecords"])
def test_what_nothing_else_would_explain_is_never_inhibited(alert: str) -> None:
    assert not any(alert in names(rule["target_matchers"]) for rule in CONFIG["inhibit_rules"])


# --- a real Alertmanager -------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # loopback
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    """The API of an Alertmanager with the example's configuration."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed (Debian: apt-get install prometheus-alertmanager)")
    port = free_port()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            program,
            f"--config.file={EXAMPLE}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        stdout=log,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}/api/v2"
    try:
        for _ in range(300):
            try:
                ask(f"{url}/status")
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()
        log.close()


def fire(api: str, *alerts: dict[str, str]) -> None:
    """Post alerts as Prometheus does, with the labels that their rules give them."""
    now = datetime.now(UTC)
    body = [
        {
            "labels": {**ALERTS[labels["alertname"]]["labels"], **labels},
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(minutes=10)).isoformat(),
        }
        for labels in alerts
    ]
    ask(f"{api}/alerts", body)


def paging(api: str, number: int) -> set[str]:
    """The alerts that somebody would be told of, once all `number` are known and their inhibition is decided.

    The same in three looks: what inhibits takes posted alerts in by itself, and may not have the cause yet.
    """
    looks: list[set[str]] = []
    for _ in range(300):
        alerts = ask(f"{api}/alerts")
        if len(alerts) == number and all(alert["status"]["state"] != "unprocessed" for alert in alerts):
            looks = [*looks[-2:], {a["labels"]["alertname"] for a in alerts if not a["status"]["inhibitedBy"]}]
            if len(looks) == 3 and all(look == looks[0] for look in looks):
                return looks[0]
        time.sleep(0.1)
    raise AssertionError(f"{number} alerts were posted, and these are known: {alerts}")


TRIAGE = {"scenario": "pre_visit.triage", "stage": "pre_visit"}
FOLLOW_UP = {"scenario": "post_visit.follow_up", "stage": "post_visit"}
#: As rules name what is ill, on alerts of its own, and on those of scenarios that need it.
SMOLLM2 = {"dependency": "model:smollm2", "needs": "model:smollm2"}
NEEDS_SMOLLM2 = {"needs": "model:smollm2"}
CLINIC_19 = {"dependency": "fhir-write:clinic-19", "source": "clinic-19", "needs": "fhir"}
WARD = {"dependency": "fhir:ward", "source": "ward", "needs": "fhir"}
LATE = ("CareloomOldestUnfinishedTooOld", "CareloomBudgetBurnsFast", "CareloomHighErrorRate")


def test_a_model_that_is_down_pages_once_and_not_for_each_late_scenario(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomModelServerDown", "instance": "model:8000", **SMOLLM2},
        {"alertname": "CareloomDependencyDown", **SMOLLM2},
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE, **NEEDS_SMOLLM2},
        {"alertname": "CareloomBudgetBurnsFast", **TRIAGE, **NEEDS_SMOLLM2},
        {"alertname": "CareloomHighErrorRate", **FOLLOW_UP, **NEEDS_SMOLLM2},
        {"alertname": "CareloomBudgetBurns", **FOLLOW_UP, **NEEDS_SMOLLM2},
        {"alertname": "CareloomWorkStuck", **FOLLOW_UP, **NEEDS_SMOLLM2},
    )
    assert paging(api, 7) == {"CareloomModelServerDown"}


def test_a_model_that_is_down_does_not_hide_a_fhir_server_that_is_down_or_a_lost_event(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomModelServerDown", "instance": "model:8000"},
        {"alertname": "CareloomDependencyDown", **WARD},
        {"alertname": "CareloomEventsUnaccounted"},
    )
    assert paging(api, 3) == {"CareloomModelServerDown", "CareloomDependencyDown", "CareloomEventsUnaccounted"}


def test_a_paused_scenario_hides_its_own_lateness_and_nobody_elses(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomScenarioPaused", "scenario": TRIAGE["scenario"]},
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE},
        {"alertname": "CareloomBudgetBurnsFast", **FOLLOW_UP},
    )
    assert paging(api, 3) == {"CareloomScenarioPaused", "CareloomBudgetBurnsFast"}


def test_a_late_scenario_pages_once_however_many_windows_see_it(api: str) -> None:
    windows = ("CareloomBudgetBurnsFast", "CareloomBudgetBurns", "CareloomBudgetBurnsSlowly")
    fire(api, *({"alertname": alert, **TRIAGE} for alert in windows))
    assert paging(api, 3) == {"CareloomBudgetBurnsFast"}


def test_drafts_that_do_not_come_page_and_leave_no_ticket_for_the_oldest_of_them(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE},
        {"alertname": "CareloomWorkStuck", **TRIAGE},
        {"alertname": "CareloomWorkStuck", **FOLLOW_UP},
    )
    assert paging(api, 3) == {"CareloomOldestUnfinishedTooOld", "CareloomWorkStuck"}
    told = [alert["labels"] for alert in ask(f"{api}/alerts") if not alert["status"]["inhibitedBy"]]
    assert {(one["severity"], one["scenario"]) for one in told} == {
        ("critical", TRIAGE["scenario"]),
        ("warning", FOLLOW_UP["scenario"]),
    }


def test_a_stuck_draft_hides_no_page_of_its_scenario(api: str) -> None:
    fire(api, {"alertname": "CareloomWorkStuck", **TRIAGE}, {"alertname": "CareloomBudgetBurnsFast", **TRIAGE})
    assert paging(api, 2) == {"CareloomWorkStuck", "CareloomBudgetBurnsFast"}


def test_a_slow_model_pages_once_and_not_for_each_late_scenario(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomModelSlow", "gen_ai_request_model": "smollm2", **SMOLLM2},
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE, **NEEDS_SMOLLM2},
        {"alertname": "CareloomBudgetBurnsFast", **FOLLOW_UP, **NEEDS_SMOLLM2},
    )
    assert paging(api, 3) == {"CareloomModelSlow"}


def test_a_lost_worker_pages_once_and_not_for_the_failures_that_it_counts_as(api: str) -> None:
    lost = {"alertname": "CareloomHighErrorRate", **TRIAGE, "error_class": "worker_lost"}
    fire(api, {"alertname": "CareloomAirflowTasksLost"}, lost)
    assert paging(api, 2) == {"CareloomAirflowTasksLost"}


def test_a_ledger_that_is_down_pages_once(api: str) -> None:
    follows = ("CareloomDispatcherDown", "CareloomAirflowSchedulerDown", "CareloomConsumerLagGrowing")
    fire(api, {"alertname": "CareloomLedgerDown"}, *({"alertname": alert} for alert in follows))
    assert paging(api, 4) == {"CareloomLedgerDown"}


@pytest.mark.parametrize(
    "cause",
    [
        {"alertname": "CareloomModelServerDown", "instance": "model:8000", **SMOLLM2},
        {"alertname": "CareloomModelServerDown", "instance": "unknown:8000"},
        {"alertname": "CareloomModelSlow", "gen_ai_request_model": "smollm2", **SMOLLM2},
        {"alertname": "CareloomSwitchedOff", "kind": "model", "target": "smollm2", **SMOLLM2},
        {"alertname": "CareloomDependencyDown", **SMOLLM2},
        {"alertname": "CareloomDependencyDown", **CLINIC_19},
        {"alertname": "CareloomAirflowTasksLost"},
        {"alertname": "CareloomDiskNearlyFull", "volume": "state"},
    ],
    ids=lambda cause: " ".join(cause.values()),
)
def test_a_fault_hides_no_scenario_that_does_not_need_what_is_ill(api: str, cause: dict[str, str]) -> None:
    """Neither those that need nothing ill, nor those that need something else that is."""
    other = {"needs": "model:qwen"}
    lag = {"alertname": "CareloomConsumerLagGrowing"}
    late = [{"alertname": alert, **TRIAGE} for alert in ("CareloomOldestUnfinishedTooOld", "CareloomHighErrorRate")]
    burns = {"alertname": "CareloomBudgetBurnsFast", **FOLLOW_UP, **other}
    fire(api, cause, lag, burns, *late)
    assert paging(api, 5) == {cause["alertname"], *LATE, "CareloomConsumerLagGrowing"}


@pytest.mark.parametrize(
    "ill",
    [SMOLLM2, CLINIC_19, *({"dependency": one, "needs": one} for one in ("kafka", "airflow"))],
    ids=lambda ill: ill["dependency"],
)
def test_a_dependency_that_is_down_pages_once_for_those_that_need_it(api: str, ill: dict[str, str]) -> None:
    needs = {"needs": ill["needs"]}
    fire(
        api,
        {"alertname": "CareloomDependencyDown", **ill},
        *({"alertname": alert, **where, **needs} for alert in LATE for where in (TRIAGE, FOLLOW_UP)),
    )
    assert paging(api, 7) == {"CareloomDependencyDown"}


def test_a_model_that_is_switched_off_hides_the_lateness_of_those_who_ask_it(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomSwitchedOff", "kind": "model", "target": "smollm2", **SMOLLM2},
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE, **NEEDS_SMOLLM2},
        {"alertname": "CareloomBudgetBurnsSlowly", **FOLLOW_UP, **NEEDS_SMOLLM2},
    )
    assert paging(api, 3) == {"CareloomSwitchedOff"}


def test_a_model_server_that_is_down_does_not_hide_another_model_that_says_garbage(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomModelServerDown", "instance": "model:8000", **SMOLLM2},
        {"alertname": "CareloomDependencyDown", "dependency": "model:qwen", "needs": "model:qwen"},
    )
    assert paging(api, 2) == {"CareloomModelServerDown", "CareloomDependencyDown"}


def test_a_fhir_server_that_is_down_hides_its_own_search_and_no_other_sources(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomDependencyDown", **WARD},
        {"alertname": "CareloomReconcileStalled", "source": "ward"},
    )
    assert paging(api, 2) == {"CareloomDependencyDown"}
    fire(api, {"alertname": "CareloomReconcileStalled", "source": "clinic-19"})
    assert paging(api, 3) == {"CareloomDependencyDown", "CareloomReconcileStalled"}


def test_what_is_needed_makes_no_group_of_its_own(api: str) -> None:
    """One page for what a scenario has to say, whatever it needs, and one for each FHIR server."""
    fire(
        api,
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE, **NEEDS_SMOLLM2},
        {"alertname": "CareloomBudgetBurnsFast", **TRIAGE},
        {"alertname": "CareloomDependencyDown", **WARD},
        {"alertname": "CareloomDependencyDown", **CLINIC_19},
    )
    paging(api, 4)
    groups = [sorted(a["labels"]["alertname"] for a in group["alerts"]) for group in ask(f"{api}/alerts/groups")]
    late = ["CareloomBudgetBurnsFast", "CareloomOldestUnfinishedTooOld"]
    assert sorted(groups) == [late, ["CareloomDependencyDown"], ["CareloomDependencyDown"]]


def test_airflow_without_a_free_slot_pages_once_and_not_for_each_late_scenario(api: str) -> None:
    fire(
        api,
        {"alertname": "CareloomAirflowSlotsTaken"},
        {"alertname": "CareloomAirflowSlotsExhausted"},
        {"alertname": "CareloomOldestUnfinishedTooOld", **TRIAGE},
        {"alertname": "CareloomBudgetBurnsFast", **FOLLOW_UP},
    )
    assert paging(api, 4) == {"CareloomAirflowSlotsTaken"}
