"""What the exporter says of itself."""

from __future__ import annotations

from monitoring.metrics.declaring import REQUEST_BUCKETS, Metric, counter, declare, gauge, histogram

FOLDED_ROWS = counter(
    "exporter", "careloom_exporter_folded_rows_total", "Finished rows folded into samples since the start."
)
FOLD_ERRORS = counter(
    "exporter", "careloom_exporter_fold_errors_total", "Folds that failed; the next one makes up for it."
)
FOLD_LAST_SUCCESS = gauge(
    "exporter",
    "careloom_exporter_fold_last_success_timestamp_seconds",
    "When a fold last went through (Unix time); 0 before the first.",
)
SNAPSHOT_DURATION = histogram(
    "exporter",
    "careloom_exporter_snapshot_duration_seconds",
    "Reading the ledger for one scrape; does not grow with finished rows.",
    REQUEST_BUCKETS,
)
DISK_FREE = declare(
    Metric(
        "careloom_disk_free_bytes",
        "gauge",
        "Room that is left on a file system that careloom writes to.",
        ("volume",),
        "exporter",
    )
)
DISK_SIZE = declare(
    Metric(
        "careloom_disk_size_bytes",
        "gauge",
        "Room that is or may be used on that file system; root's reserve is not counted.",
        ("volume",),
        "exporter",
    )
)
