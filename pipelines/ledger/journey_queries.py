"""The SQL of one event's way: to find it, and all that was noted of it; PostgreSQL only, and it changes nothing."""

from __future__ import annotations

from sqlalchemy import text

EVENTS_OF_WORK = text("SELECT event_id FROM work WHERE id = :id")

EVENTS_OF_RUN = text(
    "SELECT event_id FROM work WHERE run_id = :run_id OR :run_id = ANY(tried_in) GROUP BY event_id ORDER BY min(id)"
    " LIMIT :most"
)

# By the identity or its beginning, or by the trace: of an event that made its own it is the beginning of the identity.
EVENTS_LIKE = text(
    "SELECT event_id FROM events WHERE event_id LIKE CAST(:begin AS text) || '%'"
    " OR (length(:begin) = 32 AND traceparent LIKE '00-' || CAST(:begin AS text) || '-%')"
    " ORDER BY durable_at, event_id LIMIT :most"
)

LAST = text(
    "SELECT event_id FROM work WHERE CAST(:scenario AS text) IS NULL OR scenario = :scenario ORDER BY id DESC LIMIT 1"
)

# Of the events that came in that time, through `events_in_order`; what is not finished counts until now.
SLOWEST = text(
    """
    SELECT w.event_id FROM events e JOIN work w USING (event_id)
    WHERE e.durable_at > now() - make_interval(secs => :seconds)
        AND (CAST(:scenario AS text) IS NULL OR w.scenario = :scenario)
    ORDER BY coalesce(w.written_at, w.finished_at, clock_timestamp()) - w.received_at DESC LIMIT 1
    """
)

EVENT = text(
    """
    SELECT event_id, source, resource_type, change, topic, partition, "offset", received_at, durable_at, matched_at,
        matches, traceparent, clock_timestamp() AS now
    FROM events WHERE event_id = :event_id
    """
)

WORK = text(
    """
    SELECT id, scenario, scenario_version, stage, state, run_id, tried_in, attempts, tries, replay, patient_key,
        received_at, durable_at, matched_at, started_at, rules_written_at, context_at, answered_at, guarded_at,
        written_at, finished_at, error_class, model, created, recognised, journal,
        d.verdict, d.decided_at
    FROM work LEFT JOIN (SELECT work_id, verdict, decided_at FROM decisions WHERE event_id = :event_id) d
        ON d.work_id = work.id
    WHERE event_id = :event_id ORDER BY id
    """
)

RUNS = text(
    "SELECT run_id, size, decided_at, posted_at, closed_at, outcome FROM runs"
    " WHERE run_id = ANY(CAST(:run_ids AS text[])) ORDER BY decided_at"
)

# What held the scenario up while the row waited.
HELD = text(
    "SELECT held FROM runs WHERE scenario = :scenario AND decided_at > :since AND decided_at <= :until"
    " AND held IS NOT NULL ORDER BY decided_at LIMIT 200"
)

# Earlier work of the same patient in the same scenario, which goes first.
BEFORE = text(
    """
    SELECT id, state, coalesce(finished_at, clock_timestamp()) AS until FROM work
    WHERE scenario = :scenario AND patient_key = :patient_key AND id < :id
        AND (finished_at IS NULL OR finished_at > :since)
    ORDER BY id DESC LIMIT 20
    """
)
