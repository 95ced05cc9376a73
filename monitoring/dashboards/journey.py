"""Journey: the three stages at a glance."""

from __future__ import annotations

from monitoring.dashboards.description import BOTH, UP, Board, Panel, Row, grown, not_zero, or_zero, quantile, rate

#: Every installed scenario at 0: a column that has nothing to say of one still has its row.
_NONE = f"0 * max by (scenario, stage) (careloom_scenario_info{{{BOTH}}})"


def _each(expression: str) -> str:
    return f"{expression} or {_NONE}"


BOARD = Board(
    "careloom-journey",
    "careloom · Journey",
    "What comes in, what is drafted in time, what waits, in the three stages of care.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Unaccounted",
                    "Records and pieces of work that are nowhere; anything but 0 is a fault.",
                    "none",
                    {"items": "careloom_unaccounted_items"},
                    "number",
                    "CareloomEventsUnaccounted",
                    width=4,
                    red_from=1,
                ),
                Panel(
                    "Ledger",
                    "Whether the ledger answers.",
                    "none",
                    {"ledger": "careloom_ledger_up"},
                    "number",
                    "CareloomLedgerDown",
                    width=4,
                    red_below=1,
                    words=UP,
                ),
                Panel(
                    "Dependencies down",
                    "Models, FHIR servers, Kafka, Airflow whose breaker is open; which, stands in Delivery.",
                    "none",
                    {"down": or_zero("sum(careloom_dependency_down)")},
                    "number",
                    "CareloomDependencyDown",
                    width=4,
                    red_from=1,
                ),
                Panel(
                    "Parked",
                    "Work that waits for a person's decision: `careloom dead-letters list`.",
                    "none",
                    {"parked": or_zero(f'sum(careloom_work_items{{state="parked", {BOTH}}})')},
                    "number",
                    "CareloomWorkParked",
                    width=4,
                    red_from=1,
                ),
                Panel(
                    "Switched off",
                    "What a person has switched off.",
                    "none",
                    {"switches": or_zero("sum(careloom_switched_off)")},
                    "number",
                    "CareloomSwitchedOff",
                    width=4,
                    red_from=1,
                ),
                Panel(
                    "Alerts",
                    "Firing now, without the watchdog.",
                    "none",
                    {"alerts": or_zero('count(ALERTS{alertstate="firing", alertname!="CareloomWatchdog"})')},
                    "number",
                    width=4,
                    red_from=1,
                    runbook="CareloomWatchdog",
                ),
            ),
        ),
        Row(
            "What is wrong, whom it hurts, what to do",
            (
                Panel(
                    "Firing",
                    "Each leads to its runbook. The watchdog always stands here; without it no alert comes at all.",
                    "none",
                    {"firing": 'ALERTS{alertstate="firing"}'},
                    "table",
                    "CareloomWatchdog",
                    width=24,
                    height=6,
                ),
                Panel(
                    "Scenarios",
                    "Who waits, how long, and what was promised; what was late, failed and drafted in the last hour.",
                    "none",
                    {
                        "waiting": _each(f'sum by (scenario, stage) (careloom_work_items{{state!="parked", {BOTH}}})'),
                        "oldest": f"max by (scenario, stage) (careloom_oldest_unfinished_age_seconds{{{BOTH}}})",
                        "deadline": f"max by (scenario, stage) (careloom_scenario_deadline_seconds{{{BOTH}}})",
                        "parked": _each(f'sum by (scenario, stage) (careloom_work_items{{state="parked", {BOTH}}})'),
                        "late": _each(f"scenario:careloom_deadlines_missed:ratio_rate1h{{{BOTH}}}"),
                        "may be late": f"scenario:careloom_error_budget:ratio{{{BOTH}}}",
                        "failed tries": grown("careloom_failures_total", BOTH, "scenario, stage"),
                        "drafted": _each(
                            grown("careloom_work_finished_total", f'state="written", {BOTH}', "scenario, stage")
                        ),
                    },
                    "table",
                    "CareloomOldestUnfinishedTooOld",
                    airflow=True,
                    width=24,
                    height=12,
                    units={"oldest": "s", "deadline": "s", "late": "percentunit", "may be late": "percentunit"},
                    decimals=0,
                    red={"parked": 1, "failed tries": 1, "late": 0.05},
                    sort_by="oldest",
                ),
            ),
        ),
        Row(
            "By stage",
            (
                Panel(
                    "Events received",
                    "At the gateway, new or not.",
                    "reqps",
                    {"{{source}} {{way}}": rate("careloom_gateway_events_received_total", by="source, way")},
                    runbook="CareloomGatewayDown",
                    runbooks=("CareloomSubscriptionGaps",),
                ),
                Panel(
                    "Done",
                    "Pieces of work that came to their end, by how.",
                    "ops",
                    {"{{stage}} {{state}}": rate("careloom_work_finished_total", BOTH, "stage, state")},
                    runbook="CareloomHighErrorRate",
                ),
                Panel(
                    "Event to draft, 95 of 100",
                    "From the event's receipt to its written drafts.",
                    "s",
                    {"{{stage}}": quantile(0.95, "careloom_event_to_draft_seconds", BOTH, "stage")},
                    runbook="CareloomOldestUnfinishedTooOld",
                ),
                Panel(
                    "Unfinished",
                    "Waiting, in a run, or computed and not yet written; and parked.",
                    "short",
                    {"{{stage}} {{state}}": or_zero(f"sum by (stage, state) (careloom_work_items{{{BOTH}}})", "stage")},
                    runbook="CareloomOldestUnfinishedTooOld",
                    runbooks=("CareloomWorkParked",),
                ),
                Panel(
                    "Oldest unfinished",
                    "Since its event was received.",
                    "s",
                    {
                        "{{scenario}}": not_zero(
                            f"max by (scenario) (careloom_oldest_unfinished_age_seconds{{{BOTH}}})", "scenario"
                        )
                    },
                    runbook="CareloomWorkStuck",
                    airflow=True,
                ),
                Panel(
                    "Failed tries",
                    "By the part of the way, and by what the failure means; each is tried again.",
                    "ops",
                    {
                        "{{hop}} {{error_class}}": not_zero(
                            rate("careloom_failures_total", BOTH, "hop, error_class"), "error_class"
                        )
                    },
                    runbook="CareloomHighErrorRate",
                ),
            ),
        ),
        Row(
            "Objectives",
            (
                Panel(
                    "Late in the last hour",
                    "Share of the deadlines that were missed; a late draft counts when its deadline passes.",
                    "percentunit",
                    {"{{scenario}}": f"scenario:careloom_deadlines_missed:ratio_rate1h{{{BOTH}}}"},
                    runbook="CareloomBudgetBurnsFast",
                    airflow=True,
                    width=12,
                    at_least=0.1,
                ),
                Panel(
                    "What is promised",
                    "Deadline, and the share of events that is to be drafted within it.",
                    "none",
                    {
                        "deadline": f"max by (scenario, stage) (careloom_scenario_deadline_seconds{{{BOTH}}})",
                        "objective": f"max by (scenario, stage) (careloom_scenario_objective_ratio{{{BOTH}}})",
                        "installed": f"count by (scenario, stage) (careloom_scenario_info{{{BOTH}}})",
                    },
                    "table",
                    "CareloomBudgetBurnsSlowly",
                    airflow=True,
                    width=12,
                    units={"deadline": "s", "objective": "percentunit"},
                ),
            ),
        ),
    ),
)
