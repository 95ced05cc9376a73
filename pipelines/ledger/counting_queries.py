"""The SQL of what is counted: the account of everything, and what monitoring reads; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

PROGRESS_SUMS = text(
    """
    SELECT coalesce(sum(next_offset - base_offset + reread), 0) AS read, coalesce(sum(events), 0) AS events,
           coalesce(sum(duplicates), 0) AS duplicates, coalesce(sum(poison), 0) AS poison,
           coalesce(sum(missing), 0) AS missing,
           coalesce(sum(matches), 0) + (SELECT coalesce(sum(rows), 0) FROM replays) AS matches
    FROM progress
    """
)

#: Rows that are open or not yet folded are counted; folded ones stand in `samples` as `careloom_work_finished_total`.
WORK_BY_STATE = text(
    """
    SELECT state, count(*) AS n FROM work
    WHERE state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked') GROUP BY state
    UNION ALL
    SELECT state, count(*) FROM work WHERE NOT folded AND state IN ('written', 'stale', 'discarded') GROUP BY state
    UNION ALL
    SELECT labels::json ->> 'state', value FROM samples WHERE name = 'careloom_work_finished_total'
    """
)

# A Task that asks for approval is one for an identity, however often a replay finds it there, decided on or not. Asked
# as scalars: PostgreSQL may answer an EXISTS by a hash of the whole table.
# Taken once: the CTE is materialized, so that LIMIT and SKIP LOCKED hold for the whole statement.
FOLD = text(
    """
    WITH taken AS MATERIALIZED (
        SELECT id FROM work WHERE NOT folded AND state IN ('written', 'stale', 'discarded')
        ORDER BY id LIMIT :size FOR UPDATE SKIP LOCKED
    )
    UPDATE work w SET folded = true FROM taken WHERE w.id = taken.id
    RETURNING w.scenario, w.stage, w.state, w.model, w.received_at, w.durable_at, w.matched_at, w.dispatched_at,
        w.started_at, w.rules_written_at, w.context_at, w.answered_at, w.guarded_at, w.written_at, w.prompt_tokens,
        w.completion_tokens, w.model_seconds, w.findings, w.cut_statements, w.created, w.recognised, w.asked,
        w.verdicts, w.counted, w.finished_at, w.replay, w.late,
        w.approval IS NOT NULL AND (w.replay = 0 OR coalesce((
            SELECT false FROM work o WHERE o.event_id = w.event_id AND o.scenario = w.scenario
                AND o.scenario_version = w.scenario_version AND o.id < w.id AND o.approval IS NOT NULL LIMIT 1
        ), (
            SELECT false FROM decisions d WHERE d.event_id = w.event_id AND d.scenario = w.scenario
                AND d.scenario_version = w.scenario_version AND d.folded
        ), true)) AS asks
    """
)

# What a person had run again has no deadline: its event was received long before.
OVERDUE = text(
    """
    WITH promised AS (
        SELECT * FROM unnest(CAST(:scenarios AS text[]), CAST(:seconds AS float8[])) AS p (scenario, seconds)
    ), taken AS MATERIALIZED (
        SELECT w.id FROM work w JOIN promised p ON p.scenario = w.scenario
        WHERE w.state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked')
            AND NOT w.late AND w.replay = 0 AND w.received_at < now() - p.seconds * interval '1 second'
        ORDER BY w.id LIMIT :size FOR UPDATE OF w SKIP LOCKED
    )
    UPDATE work w SET late = true FROM taken WHERE w.id = taken.id RETURNING w.scenario, w.stage
    """
)

ADD_SAMPLES = text(
    """
    INSERT INTO samples (name, labels, value)
    SELECT * FROM unnest(CAST(:names AS text[]), CAST(:labels AS text[]), CAST(:values AS float8[]))
    ON CONFLICT (name, labels) DO UPDATE SET value = samples.value + excluded.value
    """
)

SAMPLES = text("SELECT name, labels, value FROM samples")

# `reachable` leaves out what has to wait for its own source's FHIR server, as `taking_queries` decides it.
OPEN_WORK = text(
    """
    SELECT scenario, stage, state, count(*) AS items,
        greatest(extract(epoch FROM now() - min(received_at)), 0)::float AS oldest,
        coalesce(greatest(extract(epoch FROM now() - min(received_at) FILTER (WHERE coalesce(
            CASE state WHEN 'inferred' THEN 'fhir-write:' ELSE 'fhir:' END || source
            NOT IN (SELECT dependency FROM breakers WHERE state <> 'closed'), true))), 0), 0)::float AS reachable
    FROM work WHERE state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked')
    GROUP BY scenario, stage, state
    """
)

# Which scenarios have work that waits for a FHIR server that is down.
HELD = text(
    """
    WITH down AS MATERIALIZED (SELECT dependency FROM breakers WHERE state <> 'closed' AND dependency LIKE 'fhir%')
    SELECT DISTINCT scenario
    FROM work JOIN down ON dependency = CASE state WHEN 'inferred' THEN 'fhir-write:' ELSE 'fhir:' END || source
    WHERE state IN ('waiting', 'dispatched', 'running', 'inferred')
    """
)

UNFOLDED = text("SELECT count(*) FROM work WHERE NOT folded AND state IN ('written', 'stale', 'discarded')")

POISON_OPEN = text("SELECT reason, count(*) AS n FROM poison WHERE state = 'open' GROUP BY reason")

FAILURES = text("SELECT scenario, error_class, hop, count FROM failures")

SWITCHES = text("SELECT kind, name FROM switches")

# Summed over a source's subscriptions: their ids are no closed set, and one that is made anew keeps the sum.
SUBSCRIPTIONS_BY_SOURCE = text(
    """
    SELECT source, sum(gaps) AS gaps, sum(missed_events) AS missed, extract(epoch FROM max(seen_at))::float AS seen
    FROM subscriptions GROUP BY source
    """
)

DOWN = text("SELECT dependency, state <> 'closed' AS down FROM breakers")

RECONCILED_BY_SOURCE = text("SELECT source, extract(epoch FROM until)::float AS until FROM reconciled")
