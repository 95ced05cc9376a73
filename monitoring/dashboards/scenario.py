"""Scenario: one scenario's way, hop by hop."""

from __future__ import annotations

from monitoring.dashboards.description import (
    BOTH,
    SCENARIO,
    WRONG,
    Board,
    Panel,
    Row,
    mean,
    not_zero,
    or_zero,
    quantile,
    rate,
)

BOARD = Board(
    "careloom-scenario",
    "careloom · Scenario",
    "One scenario: is it in time, where does its time go, what fails.",
    (
        Row(
            "Objective",
            (
                Panel(
                    "Late, by window",
                    "The windows that alerts compare with what may be late.",
                    "percentunit",
                    {
                        "5 min": f"scenario:careloom_deadlines_missed:ratio_rate5m{{{BOTH}}}",
                        "30 min": f"scenario:careloom_deadlines_missed:ratio_rate30m{{{BOTH}}}",
                        "1 h": f"scenario:careloom_deadlines_missed:ratio_rate1h{{{BOTH}}}",
                        "6 h": f"scenario:careloom_deadlines_missed:ratio_rate6h{{{BOTH}}}",
                        "3 d": f"scenario:careloom_deadlines_missed:ratio_rate3d{{{BOTH}}}",
                        "may be late": f"scenario:careloom_error_budget:ratio{{{BOTH}}}",
                    },
                    runbook="CareloomBudgetBurns",
                    width=12,
                    at_least=0.1,
                ),
                Panel(
                    "Deadlines",
                    "Met and missed.",
                    "ops",
                    {"{{outcome}}": rate("careloom_deadlines_total", BOTH, "outcome")},
                    runbook="CareloomBudgetBurnsFast",
                    width=12,
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel(
                    "Event to draft",
                    "From the event's receipt to its written drafts.",
                    "s",
                    {
                        "50 of 100": quantile(0.5, "careloom_event_to_draft_seconds", BOTH),
                        "95 of 100": quantile(0.95, "careloom_event_to_draft_seconds", BOTH),
                        "99 of 100": quantile(0.99, "careloom_event_to_draft_seconds", BOTH),
                    },
                    runbook="CareloomOldestUnfinishedTooOld",
                ),
                Panel(
                    "Each hop, mean",
                    "Together they are the whole way; `started` holds the waits between tries.",
                    "s",
                    {"{{hop}}": mean("careloom_hop_duration_seconds", BOTH, "hop")},
                    runbook="CareloomBudgetBurns",
                ),
                Panel(
                    "Event to draft by rules alone",
                    "Red flags, written before the model is asked.",
                    "s",
                    {"95 of 100": quantile(0.95, "careloom_event_to_rule_draft_seconds", BOTH)},
                    runbook="CareloomOldestUnfinishedTooOld",
                ),
            ),
        ),
        Row(
            "Work",
            (
                Panel(
                    "Unfinished",
                    "By state.",
                    "short",
                    {
                        "{{scenario}} {{state}}": or_zero(
                            f"sum by (scenario, state) (careloom_work_items{{{BOTH}}})", "scenario"
                        )
                    },
                    runbook="CareloomWorkParked",
                    airflow=True,
                ),
                Panel(
                    "Failed tries",
                    "By the part of the way, and by what the failure means.",
                    "ops",
                    {
                        "{{hop}} {{error_class}}": not_zero(
                            rate("careloom_failures_total", BOTH, "hop, error_class"), "error_class"
                        )
                    },
                    runbook="CareloomHighErrorRate",
                ),
                Panel(
                    "Done",
                    "Written, overtaken by a newer version, or discarded by a person; by model.",
                    "ops",
                    {"{{state}} {{model}}": rate("careloom_work_finished_total", BOTH, "state, model")},
                    runbook="CareloomHighErrorRate",
                ),
                Panel(
                    "Open runs in Airflow",
                    "With unfinished work, by the ledger; their series lead there.",
                    "short",
                    {"{{scenario}}": f"careloom_dispatcher_open_runs{{{SCENARIO}}}"},
                    runbook="CareloomAirflowSchedulerDown",
                    airflow=True,
                ),
                Panel(
                    "Runs that stay",
                    "Runs that wait for further work, and the work a second that such runs took (told at their end).",
                    "short",
                    {
                        "{{scenario}} stay": or_zero(
                            f"sum by (scenario) (careloom_dispatcher_staying_runs{{{SCENARIO}}})", "scenario"
                        ),
                        "{{scenario}} taken": or_zero(
                            rate("careloom_dispatcher_rows_taken_total", SCENARIO, "scenario"), "scenario"
                        ),
                    },
                    airflow=True,
                ),
                Panel(
                    "Work in one run",
                    "Pieces of work given to one Airflow run, mean.",
                    "short",
                    {"{{scenario}}": mean("careloom_dispatcher_batch_items", SCENARIO, "scenario")},
                    airflow=True,
                ),
                Panel(
                    "Paused, not installed",
                    "1 while the DAG is paused, or work waits for a scenario that is not there.",
                    "none",
                    {
                        "{{scenario}} paused": f"careloom_dispatcher_scenario_paused{{{SCENARIO}}}",
                        "{{scenario}} not installed": f"careloom_dispatcher_scenario_not_installed{{{SCENARIO}}}",
                    },
                    runbook="CareloomScenarioNotInstalled",
                    airflow=True,
                    words=WRONG,
                ),
            ),
        ),
        Row(
            "Plugins",
            (
                Panel(
                    "Hooks that failed",
                    "Lifecycle hooks of plugins; a failing hook never stops a draft.",
                    "ops",
                    {
                        "{{plugin}} {{hook}}": or_zero(
                            rate("careloom_plugin_hook_errors_total", SCENARIO, "plugin, hook"), "plugin"
                        )
                    },
                    width=24,
                ),
            ),
        ),
    ),
    one_scenario=True,
)
