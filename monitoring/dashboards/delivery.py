"""Delivery: from the hospital's systems through Kafka into the ledger, and nothing lost."""

from __future__ import annotations

from monitoring.dashboards.description import UP, WRONG, Board, Panel, Row, grown, not_zero, or_zero, quantile, rate

BOARD = Board(
    "careloom-delivery",
    "careloom · Delivery",
    "Gateway, Kafka, dispatcher, ledger, exporter: what came in, what was refused, what is nowhere.",
    (
        Row(
            "Gateway",
            (
                Panel(
                    "Received and durable",
                    "Durable: Kafka has acknowledged it.",
                    "reqps",
                    {
                        "received {{source}}": rate("careloom_gateway_events_received_total", by="source"),
                        "durable {{source}}": rate("careloom_gateway_events_produced_total", by="source"),
                    },
                    runbook="CareloomGatewayDown",
                    runbooks=("CareloomSubscriptionGaps",),
                ),
                Panel(
                    "Refused",
                    "Requests answered with 4xx or 5xx.",
                    "reqps",
                    {
                        "{{source}} {{reason}}": or_zero(
                            rate("careloom_gateway_events_refused_total", by="source, reason"), "reason"
                        )
                    },
                    runbook="CareloomBrokerUnavailable",
                ),
                Panel(
                    "Answer, 95 of 100",
                    "From the request's last byte to the answer.",
                    "s",
                    {"{{outcome}}": quantile(0.95, "careloom_gateway_request_duration_seconds", by="outcome")},
                    runbook="CareloomBrokerUnavailable",
                ),
                Panel(
                    "Not valid, not new",
                    "Resources that are not valid FHIR, and notifications of our own drafts.",
                    "reqps",
                    {
                        "not valid {{source}}": rate("careloom_gateway_validation_problems_total", by="source"),
                        "own draft {{source}}": rate("careloom_gateway_own_drafts_ignored_total", by="source"),
                    },
                ),
                Panel(
                    "Gaps in notifications",
                    "Event numbers that were jumped over, at the gateway and in the ledger.",
                    "short",
                    {
                        "gaps {{source}}": grown("careloom_gateway_event_number_gaps_total", by="source"),
                        "missed {{source}}": grown("careloom_gateway_events_missed_total", by="source"),
                        "subscription in error {{source}}": grown(
                            "careloom_gateway_subscription_errors_total", by="source"
                        ),
                        "ledger, gaps {{source}}": grown("careloom_subscription_gaps_total", by="source"),
                        "ledger, missed {{source}}": grown("careloom_subscription_missed_events_total", by="source"),
                    },
                    runbook="CareloomSubscriptionGaps",
                ),
                Panel(
                    "Search for what was not notified",
                    "Found by a search, and searches that failed.",
                    "short",
                    {
                        "found {{source}}": grown("careloom_gateway_reconcile_found_total", by="source"),
                        "failed {{source}}": grown("careloom_gateway_reconcile_errors_total", by="source"),
                    },
                    runbook="CareloomReconcileStalled",
                    runbooks=("CareloomSubscriptionGaps",),
                ),
                Panel(
                    "Last time of each source",
                    "Seconds since it was searched, last notified, and up to when it is known.",
                    "s",
                    {
                        "searched {{source}}": "time() - careloom_gateway_reconcile_last_success_timestamp_seconds",
                        "known up to {{source}}": "time() - (careloom_reconciled_until_timestamp_seconds > 0)",
                        "notified {{source}}": "time() - careloom_subscription_last_seen_timestamp_seconds",
                        "to be searched every {{source}}": "careloom_reconcile_interval_seconds",
                    },
                    runbook="CareloomReconcileStalled",
                    width=24,
                ),
            ),
        ),
        Row(
            "Kafka and dispatcher",
            (
                Panel(
                    "Waiting in Kafka",
                    "Records that are not in the ledger yet.",
                    "short",
                    {"partition {{partition}}": "careloom_dispatcher_consumer_lag_records"},
                    runbook="CareloomConsumerLagGrowing",
                ),
                Panel(
                    "Since the last step",
                    "Of the thread that reads Kafka: where it grows, it hangs, and what waits stands still.",
                    "s",
                    {"{{instance}}": "time() - careloom_dispatcher_intake_last_step_timestamp_seconds"},
                    runbook="CareloomIntakeStalled",
                ),
                Panel(
                    "Read from Kafka",
                    "Records, by what they were.",
                    "reqps",
                    {"{{outcome}}": rate("careloom_dispatcher_records_total", by="outcome")},
                    runbook="CareloomDispatcherDown",
                    runbooks=("CareloomConsumerLagGrowing",),
                ),
                Panel(
                    "Held back, rewound",
                    "Not read as too much waits in the ledger; the broker lost data.",
                    "short",
                    {
                        "held back": "careloom_dispatcher_reading_held_back",
                        "rewinds": "increase(careloom_dispatcher_broker_rewinds_total[1h])",
                    },
                    runbook="CareloomBrokerLostRecords",
                    width=12,
                ),
                Panel(
                    "Records that are no events",
                    "Ever, and those nobody has decided on.",
                    "short",
                    {
                        "{{poison_reason}} ever": not_zero("careloom_poison_records_total", "poison_reason"),
                        "open": "sum(careloom_poison_open_records)",
                        "copies {{outcome}}": or_zero(
                            "sum by (outcome) (careloom_dispatcher_dead_letter_copies_total)", "outcome"
                        ),
                    },
                    runbook="CareloomPoisonRecords",
                    width=12,
                ),
                Panel(
                    "POST to Airflow, 95 of 100",
                    "One run asked for.",
                    "s",
                    {"{{outcome}}": quantile(0.95, "careloom_dispatcher_airflow_post_duration_seconds", by="outcome")},
                    runbook="CareloomDependencyDown",
                    width=12,
                ),
                Panel(
                    "Airflow's API failed",
                    "Requests, by outcome.",
                    "reqps",
                    {"{{outcome}}": or_zero(rate("careloom_dispatcher_airflow_errors_total", by="outcome"), "outcome")},
                    runbook="CareloomDependencyDown",
                    width=12,
                ),
            ),
        ),
        Row(
            "Ledger and exporter",
            (
                Panel(
                    "Account",
                    "Records in the ledger by what they were, and the work they were to become.",
                    "short",
                    {
                        "{{outcome}}": "careloom_ledger_records_total",
                        "matches": "careloom_ledger_matches_total",
                        "unaccounted": "careloom_unaccounted_items",
                    },
                    runbook="CareloomEventsUnaccounted",
                ),
                Panel(
                    "Dependencies",
                    "Whether it counts as down; what needs it waits in the ledger.",
                    "none",
                    {"{{dependency}} down": or_zero("max by (dependency) (careloom_dependency_down)", "dependency")},
                    runbook="CareloomDependencyDown",
                    words=WRONG,
                ),
                Panel(
                    "Drafts at the FHIR server",
                    "New, and recognised from an earlier try.",
                    "ops",
                    {"{{outcome}}": rate("careloom_drafts_total", by="outcome")},
                    runbook="CareloomDependencyDown",
                ),
                Panel(
                    "Counting",
                    "Finished rows that are not counted yet, and rows counted.",
                    "short",
                    {
                        "not counted yet": "careloom_work_unfolded_items",
                        "counted a second": rate("careloom_exporter_folded_rows_total"),
                        "failed folds a second": rate("careloom_exporter_fold_errors_total"),
                    },
                    runbook="CareloomFoldStalled",
                ),
                Panel(
                    "Since the last count",
                    "Seconds since finished work was last counted.",
                    "s",
                    {"fold": "time() - careloom_exporter_fold_last_success_timestamp_seconds"},
                    runbook="CareloomFoldStalled",
                ),
                Panel(
                    "Reading the ledger for a scrape",
                    "Does not grow with finished rows.",
                    "s",
                    {"95 of 100": quantile(0.95, "careloom_exporter_snapshot_duration_seconds")},
                    runbook="CareloomExporterDown",
                ),
                Panel(
                    "Disks in use",
                    "Share of each file system that careloom writes to.",
                    "percentunit",
                    {"{{volume}}": "1 - careloom_disk_free_bytes / careloom_disk_size_bytes"},
                    runbook="CareloomDiskNearlyFull",
                ),
                Panel(
                    "Versions fenced off",
                    "An older version's write of unknown end, refused before a newer one is written.",
                    "ops",
                    {"{{outcome}}": or_zero(rate("careloom_write_fences_total", by="outcome"), "outcome")},
                ),
                Panel(
                    "What runs",
                    "Versions of careloom and Python.",
                    "short",
                    {"processes": "count by (process, version, python) (careloom_build_info)"},
                    "table",
                    width=8,
                ),
                Panel(
                    "Processes",
                    "Whether Prometheus can scrape it.",
                    "none",
                    {"{{job}} {{instance}}": "up"},
                    runbook="CareloomExporterDown",
                    width=24,
                    words=UP,
                ),
            ),
        ),
    ),
)
