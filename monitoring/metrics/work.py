"""What the ledger says of work: its states, its way, its deadlines, what it failed of."""

from __future__ import annotations

from monitoring.metrics.declaring import LATENCY_BUCKETS, ledger

LEDGER_UP = ledger("gauge", "careloom_ledger_up", "1 when the ledger answered this scrape, else 0.")
LEDGER_MATCHES = ledger("counter", "careloom_ledger_matches_total", "Pieces of work that events were to become.")
UNACCOUNTED = ledger(
    "gauge", "careloom_unaccounted_items", "Records and pieces of work that are nowhere; anything but 0 is a fault."
)
WORK = ledger("gauge", "careloom_work_items", "Unfinished and parked pieces of work.", "scenario", "stage", "state")
WORK_UNFOLDED = ledger(
    "gauge", "careloom_work_unfolded_items", "Finished pieces of work that are not yet in the counters below."
)
OLDEST_UNFINISHED = ledger(
    "gauge",
    "careloom_oldest_unfinished_age_seconds",
    "Age of the oldest unfinished piece of work since its event was received; 0 where none is unfinished.",
    "scenario",
    "stage",
)
OLDEST_REACHABLE = ledger(
    "gauge",
    "careloom_oldest_reachable_age_seconds",
    "The same of work whose source's FHIR server does not count as down: nothing explains why that is late.",
    "scenario",
    "stage",
)
SCENARIO_DEADLINE = ledger(
    "gauge",
    "careloom_scenario_deadline_seconds",
    "The scenario's deadline: from event to written draft.",
    "scenario",
    "stage",
)
SCENARIO_OBJECTIVE = ledger(
    "gauge",
    "careloom_scenario_objective_ratio",
    "The scenario's objective: the share of its events that are to be drafted within that time.",
    "scenario",
    "stage",
)
SCENARIO_INFO = ledger(
    "gauge", "careloom_scenario_info", "1 for each installed scenario.", "scenario", "stage", "version"
)
SCENARIO_NEEDS_INFO = ledger(
    "gauge",
    "careloom_scenario_needs_info",
    "1 for what a scenario needs: Kafka, Airflow, the models that it asks now, FHIR where its work waits for a server.",
    "scenario",
    "stage",
    "needs",
)
MODEL_SERVER_INFO = ledger(
    "gauge", "careloom_model_server_info", "1 for each model and its server's host and port.", "dependency", "server"
)
WORK_FINISHED = ledger(
    "counter", "careloom_work_finished_total", "Pieces of work that are done.", "scenario", "stage", "state", "model"
)
DEADLINES = ledger(
    "counter",
    "careloom_deadlines_total",
    "Pieces of work drafted within their scenario's deadline, or not; a late one counts when its deadline passes.",
    "scenario",
    "stage",
    "outcome",
)
FAILURES = ledger(
    "counter",
    "careloom_failures_total",
    "Tries that failed, by what it means and in which part of the way.",
    "scenario",
    "stage",
    "error_class",
    "hop",
)
WRITE_FENCES = ledger(
    "counter",
    "careloom_write_fences_total",
    "Transactions of older versions, of unknown end, that were fenced off before a newer one was written.",
    "outcome",
)
HOP_DURATION = ledger(
    "histogram",
    "careloom_hop_duration_seconds",
    "Each part of the way of written work; `started` holds the waits between tries.",
    "scenario",
    "stage",
    "hop",
    buckets=LATENCY_BUCKETS,
)
EVENT_TO_DRAFT = ledger(
    "histogram",
    "careloom_event_to_draft_seconds",
    "From the event's receipt to its written drafts.",
    "scenario",
    "stage",
    buckets=LATENCY_BUCKETS,
)
EVENT_TO_RULE_DRAFT = ledger(
    "histogram",
    "careloom_event_to_rule_draft_seconds",
    "From the event's receipt to drafts that rest on rules alone, written before the model is asked.",
    "scenario",
    "stage",
    buckets=LATENCY_BUCKETS,
)
DRAFTS = ledger("counter", "careloom_drafts_total", "Resources at the FHIR server.", "scenario", "stage", "outcome")
DEPENDENCY_DOWN = ledger(
    "gauge",
    "careloom_dependency_down",
    "1 while a dependency counts as down and what needs it waits in the ledger, else 0.",
    "dependency",
)
SWITCHED_OFF = ledger("gauge", "careloom_switched_off", "1 for whatever a person has switched off.", "kind", "target")
