"""Journey: the three stages at a glance."""

from __future__ import annotations

from monitoring.dashboards.description import BOTH, Board, Panel, Row, or_zero, quantile, rate

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
                    "Anything but 0 is a fault.",
                    "short",
                    {"items": "careloom_unaccounted_items"},
                    "number",
                    "CareloomEventsUnaccounted",
                    width=4,
                ),
                Panel(
                    "Ledger",
                    "1 when the ledger answers.",
                    "bool",
                    {"ledger": "careloom_ledger_up"},
                    "number",
                    "CareloomLedgerDown",
                    width=4,
                ),
                Panel(
                    "Dependencies down",
                    "Models, FHIR servers, Kafka, Airflow whose breaker is open.",
                    "short",
                    {"down": or_zero("sum(careloom_dependency_down)")},
                    "number",
                    "CareloomDependencyDown",
                    width=4,
                ),
                Panel(
                    "Parked",
                    "Work that waits for a person's decision.",
                    "short",
                    {"parked": f'sum(careloom_work_items{{state="parked", {BOTH}}}) or on () vector(0)'},
                    "number",
                    "CareloomWorkParked",
                    width=4,
                ),
                Panel(
                    "Switched off",
                    "What a person has switched off.",
                    "short",
                    {"switches": or_zero("sum(careloom_switched_off)")},
                    "number",
                    "CareloomSwitchedOff",
                    width=4,
                ),
                Panel(
                    "Alerts",
                    "Firing now, without the watchdog.",
                    "short",
                    {"alerts": 'count(ALERTS{alertstate="firing", alertname!="CareloomWatchdog"}) or on () vector(0)'},
                    "number",
                    width=4,
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
                ),
                Panel(
                    "Done",
                    "Pieces of work that came to their end, by how.",
                    "ops",
                    {"{{stage}} {{state}}": rate("careloom_work_finished_total", BOTH, "stage, state")},
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
                    {"{{stage}} {{state}}": or_zero(f"sum by (stage, state) (careloom_work_items{{{BOTH}}})")},
                ),
                Panel(
                    "Oldest unfinished",
                    "Since its event was received.",
                    "s",
                    {"{{scenario}}": f"max by (scenario) (careloom_oldest_unfinished_age_seconds{{{BOTH}}})"},
                    runbook="CareloomOldestUnfinishedTooOld",
                    airflow=True,
                ),
                Panel(
                    "Failed tries",
                    "By what the failure means; each is tried again.",
                    "ops",
                    {"{{error_class}}": rate("careloom_failures_total", BOTH, "error_class")},
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
                ),
                Panel(
                    "What is promised",
                    "Deadline, and the share of events that is to be drafted within it.",
                    "short",
                    {
                        "deadline, s": f"careloom_scenario_deadline_seconds{{{BOTH}}}",
                        "objective": f"careloom_scenario_objective_ratio{{{BOTH}}}",
                        "installed": f"careloom_scenario_info{{{BOTH}}}",
                    },
                    "table",
                    "CareloomBudgetBurnsSlowly",
                    width=12,
                ),
            ),
        ),
    ),
)
