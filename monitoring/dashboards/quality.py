"""Clinical quality: what rules found, what guards cut, what became of drafts, and what persons decided on them."""

from __future__ import annotations

from monitoring.dashboards.description import (
    BOTH,
    SCENARIO,
    Board,
    Panel,
    Row,
    grown,
    not_zero,
    or_zero,
    quantile,
    rate,
)

_CUT = rate("careloom_statements_cut_total", BOTH, "scenario")
_WRITTEN = rate("careloom_work_finished_total", f'state="written", {BOTH}', "scenario")
_DECIDED = "careloom_decisions_total"
_BY_WEIGHTS = "scenario, model, model_version"
_OVERTAKEN = rate("careloom_work_finished_total", f'state="stale", {BOTH}', "scenario")

BOARD = Board(
    "careloom-quality",
    "careloom · Clinical quality",
    "How far what the models say can be relied on: guards' verdicts, statements cut, rules' findings, drafts, and what"
    " persons decided on them.",
    (
        Row(
            "Guards",
            (
                Panel(
                    "Statements cut",
                    "The record does not support them.",
                    "ops",
                    {"{{scenario}}": or_zero(rate("careloom_statements_cut_total", BOTH, "scenario"), "scenario")},
                    airflow=True,
                ),
                Panel(
                    "Statements cut from a draft",
                    "For each draft written.",
                    "short",
                    {"{{scenario}}": f"({_CUT} or 0 * {_WRITTEN}) / on (scenario) ({_WRITTEN} > 0)"},
                    airflow=True,
                    runbook="CareloomHighErrorRate",
                ),
                Panel(
                    "Verdicts",
                    "What guards found wrong, and whether it was cut or its reader told.",
                    "ops",
                    {
                        "{{guard}} {{code}} {{action}}": or_zero(
                            rate("careloom_guard_verdicts_total", SCENARIO, "guard, code, action"), "guard"
                        )
                    },
                ),
                Panel(
                    "Verdicts of a day",
                    "The same as numbers, by scenario.",
                    "short",
                    {
                        "in a day": or_zero(
                            grown(
                                "careloom_guard_verdicts_total", SCENARIO, "scenario, guard, code, action", over="1d"
                            ),
                            "scenario",
                        )
                    },
                    "table",
                    width=24,
                    decimals=0,
                    sort_by="in a day",
                    airflow=True,
                ),
            ),
        ),
        Row(
            "Rules and drafts",
            (
                Panel(
                    "Findings",
                    "Of rules, with or without a model.",
                    "ops",
                    {"{{scenario}}": or_zero(rate("careloom_findings_total", BOTH, "scenario"), "scenario")},
                    airflow=True,
                ),
                Panel(
                    "Drafts written",
                    "New resources at the FHIR server.",
                    "ops",
                    {"{{scenario}}": rate("careloom_drafts_total", f'outcome="created", {BOTH}', "scenario")},
                    airflow=True,
                ),
                Panel(
                    "Answers that cannot be used",
                    "The model's answer did not hold to its schema, or was rejected.",
                    "ops",
                    {
                        "{{scenario}} {{error_class}}": not_zero(
                            rate(
                                "careloom_failures_total",
                                f'error_class=~"model_invalid_output|model_rejected", {BOTH}',
                                "scenario, error_class",
                            ),
                            "scenario",
                        )
                    },
                    runbook="CareloomHighErrorRate",
                    airflow=True,
                ),
                Panel(
                    "Overtaken",
                    "Computed from a version that a newer one has replaced; not written.",
                    "ops",
                    {"{{scenario}}": or_zero(_OVERTAKEN, "scenario")},
                    airflow=True,
                    runbook="CareloomHighErrorRate",
                ),
            ),
        ),
        Row(
            "Decisions",
            (
                Panel(
                    "Decided by a person",
                    "Drafts that were accepted, edited or rejected.",
                    "ops",
                    {"{{verdict}}": or_zero(rate(_DECIDED, SCENARIO, "verdict"), "verdict")},
                ),
                Panel(
                    "Draft to decision",
                    "From the written drafts to a person's decision: half of them, and 95 of 100, are faster.",
                    "s",
                    {
                        f"{{{{scenario}}}} {name}": quantile(
                            share, "careloom_draft_to_decision_seconds", SCENARIO, "scenario"
                        )
                        for name, share in (("half", 0.5), ("95 of 100", 0.95))
                    },
                    airflow=True,
                ),
                Panel(
                    "Wait for a person",
                    "Drafts that nobody has decided on yet, of whatever age.",
                    "short",
                    {"{{scenario}}": f"sum by (scenario) (careloom_decisions_waiting_items{{{SCENARIO}}})"},
                    airflow=True,
                    at_least=1,
                ),
                Panel(
                    "Decisions of a week",
                    "By scenario and the weights that had answered; look at both before and after new weights.",
                    "short",
                    {
                        verdict: or_zero(
                            grown(_DECIDED, f'verdict="{verdict}", {SCENARIO}', _BY_WEIGHTS, over="7d"), "scenario"
                        )
                        for verdict in ("accepted", "edited", "rejected")
                    },
                    "table",
                    width=16,
                    decimals=0,
                    sort_by="rejected",
                    airflow=True,
                ),
                Panel(
                    "Decisions not taken",
                    "Of a day: no person was named, the ledger knows no such draft, or somebody had decided before.",
                    "short",
                    {"{{reason}}": grown("careloom_decisions_not_taken_total", "", "reason", over="1d")},
                    at_least=1,
                ),
            ),
        ),
    ),
)
