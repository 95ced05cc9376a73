"""The SQL of what waits and why, and of how objectives are met now; PostgreSQL only, and it changes nothing."""

from __future__ import annotations

from sqlalchemy import text

from pipelines.ledger.taking_queries import WITH_DOWN

# Why each row that is in no run waits, grouped. The tests are those of `taking_queries._OPEN`, which decides; here each
# also says which of them it was, the one that a person would have to see to first.
_NAMED = (
    WITH_DOWN
    + """, open AS (
        SELECT id, scenario, patient_key, received_at, state = 'parked' AS parked,
            run_id IS NULL AND state <> 'parked' AS waits,
            run_id IS NOT NULL AND state <> 'parked' AS going,
            (SELECT dependency FROM down WHERE dependency = ANY(CASE state
                WHEN 'inferred' THEN ARRAY['fhir-write:' || source]
                ELSE ARRAY[waits_for, 'fhir:' || source, 'kafka'] END) ORDER BY dependency LIMIT 1) AS dependency,
            CASE WHEN not_before > now() THEN not_before END AS until, error_class,
            error_class = 'model_unavailable' AND waits_for IS NULL AS switched
        FROM work WHERE state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked')
    ), standing AS (
        SELECT *, coalesce(min(id) FILTER (WHERE parked) OVER patient < id, false) AS behind_parked,
            bool_or(going) OVER patient AS behind_running,
            coalesce(min(id) FILTER (WHERE waits AND (dependency IS NOT NULL OR until IS NOT NULL)) OVER patient < id,
                false) AS behind_waiting
        FROM open WINDOW patient AS (PARTITION BY scenario, patient_key)
    ), judged AS (
        SELECT id, scenario, received_at, CASE
                WHEN behind_parked THEN 'behind_parked'
                WHEN dependency IS NOT NULL THEN 'dependency_down'
                WHEN until IS NOT NULL AND switched THEN 'model_off'
                WHEN until IS NOT NULL THEN 'backoff'
                WHEN behind_running THEN 'behind_running'
                WHEN behind_waiting THEN 'behind_waiting'
                ELSE 'ready' END AS why,
            dependency, until, error_class
        FROM standing WHERE waits
    ), named AS (
        SELECT id, scenario, received_at, why, CASE why WHEN 'backoff' THEN until END AS until,
            CASE why WHEN 'dependency_down' THEN dependency WHEN 'backoff' THEN error_class END AS what
        FROM judged
    )
"""
)

WAITS = text(
    _NAMED
    + """
    SELECT scenario, why, what, count(*) AS items, min(until) AS until,
        greatest(extract(epoch FROM now() - min(received_at)), 0)::float AS oldest
    FROM named GROUP BY scenario, why, what ORDER BY scenario, why, what
    """
)

# The same for one row; none where it does not wait.
WAIT_OF = text(_NAMED + "SELECT scenario, why, what, until FROM named WHERE id = :id")

OPEN_RUNS = text(
    """
    SELECT scenario, count(*) AS n, count(*) FILTER (WHERE NOT withdrawn AND stays_until > clock_timestamp()) AS staying
    FROM runs WHERE closed_at IS NULL GROUP BY scenario
    """
)

# As `fold` counts deadlines, over the events that Kafka had in the last so many seconds: what is not finished has
# missed its deadline as soon as that has passed, and says nothing before. Replays have none. Read through
# `events_in_order`.
TIMELINESS = text(
    """
    WITH promised AS (
        SELECT * FROM unnest(CAST(:scenarios AS text[]), CAST(:seconds AS float8[])) AS p (scenario, seconds)
    ), recent AS (
        SELECT w.scenario, w.state, coalesce(w.written_at, w.finished_at, now()) - w.received_at
                <= p.seconds * interval '1 second' AS in_time
        FROM events e JOIN work w USING (event_id) JOIN promised p ON p.scenario = w.scenario
        WHERE e.durable_at > now() - :window * interval '1 second' AND w.replay = 0
    )
    SELECT scenario, count(*) FILTER (WHERE state = 'written' AND in_time) AS met,
        count(*) FILTER (WHERE state = 'discarded' OR NOT in_time) AS missed,
        count(*) FILTER (WHERE state = 'discarded') AS discarded
    FROM recent GROUP BY scenario
    """
)

# How fast: drafts written within the last minute, and how long those took from their event that came in the window.
PACE = text(
    """
    SELECT w.scenario, count(*) FILTER (WHERE w.written_at > now() - interval '1 minute') AS per_minute,
        count(*) AS written,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM w.written_at - w.received_at)) AS p50,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM w.written_at - w.received_at)) AS p95
    FROM events e JOIN work w USING (event_id)
    WHERE e.durable_at > now() - :window * interval '1 second' AND w.state = 'written' AND w.replay = 0
    GROUP BY w.scenario
    """
)

# The classes that parked work has, by scenario.
PARKED = text(
    """
    SELECT scenario, error_class, count(*) AS items,
        greatest(extract(epoch FROM now() - min(coalesce(failed_at, received_at))), 0)::float AS oldest
    FROM work WHERE state = 'parked' GROUP BY scenario, error_class ORDER BY scenario, error_class
    """
)
