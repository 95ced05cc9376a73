"""What the ledger says of what came in: records, poison, gaps, reconciliation."""

from __future__ import annotations

from monitoring.metrics.declaring import ledger

LEDGER_RECORDS = ledger(
    "counter",
    "careloom_ledger_records_total",
    "Kafka records in the ledger, by what they were; never goes back.",
    "outcome",
)
POISON = ledger(
    "counter",
    "careloom_poison_records_total",
    "Kafka records that are no events, by why; never goes back.",
    "poison_reason",
)
POISON_OPEN = ledger(
    "gauge",
    "careloom_poison_open_records",
    "Records that are no events and that nobody has decided on.",
    "poison_reason",
)
SUBSCRIPTION_GAPS = ledger(
    "counter", "careloom_subscription_gaps_total", "Gaps in the event numbers of a source's subscriptions.", "source"
)
SUBSCRIPTION_MISSED = ledger(
    "counter", "careloom_subscription_missed_events_total", "Event numbers of a source that were jumped over.", "source"
)
SUBSCRIPTION_SEEN = ledger(
    "gauge",
    "careloom_subscription_last_seen_timestamp_seconds",
    "When a numbered notification of the source last came (Unix time).",
    "source",
)
RECONCILED_UNTIL = ledger(
    "gauge",
    "careloom_reconciled_until_timestamp_seconds",
    "Up to when the source was searched for what was never notified (Unix time); 0 where it never was.",
    "source",
)
RECONCILE_INTERVAL = ledger(
    "gauge",
    "careloom_reconcile_interval_seconds",
    "How often the source is to be searched, by configuration.",
    "source",
)
