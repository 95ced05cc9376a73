"""The SQL of which rows may be taken, and of binding them to runs and to workers; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

LOCK_SCENARIO = text("SELECT pg_advisory_xact_lock(hashtextextended('careloom.take_run.' || :scenario, 0))")

SWITCHED_OFF = text(
    "SELECT 1 FROM switches WHERE kind = 'everything' OR (kind = 'scenario' AND name = :scenario) LIMIT 1"
)

# A dependency is down until its next try is due, and while a run that is open makes that try.
WITH_DOWN = """
    WITH down AS MATERIALIZED (
        SELECT dependency FROM breakers
        WHERE (state = 'open' AND retry_at > now())
           OR (state = 'half_open' AND probe_until > now()
               AND probe IN (SELECT run_id FROM runs WHERE closed_at IS NULL))
    )"""

# A row may be taken when no other row of its patient in its scenario is in a run, and none before it is parked or
# waits out a backoff: order is kept per patient, and a poison event holds back its own patient only. `losses` counts
# the workers that were lost over a row: it may be what killed them.
# What a row needs and is down holds it as well: reading from its source's server, or for drafts writing; Kafka; and
# what it was last seen to wait for. The model is known from that alone, so that every row gets one run for its rules.
# A row that nothing holds, but that stands behind one that is held, gets a run for its rules alone (`rules_only`).
# One sort of the open rows, whatever the planner knows of them: as a correlated NOT EXISTS the same test took 72 s over
# 20,000 rows, and as a join with the two sets of what holds back 0.02 s, or 1.5 s where the planner took nested loops.
_OPEN = (
    WITH_DOWN
    + """, open AS (
        SELECT id, scenario, patient_key, matched_at, run_id IS NULL AND state <> 'parked' AS waits,
            run_id IS NOT NULL AND state <> 'parked' AS going, state = 'parked' AS parked,
            state = 'parked' OR (run_id IS NULL AND (not_before > now() OR (
                EXISTS (SELECT 1 FROM down) AND CASE state
                    WHEN 'inferred' THEN 'fhir-write:' || source IN (SELECT dependency FROM down)
                    ELSE waits_for IN (SELECT dependency FROM down)
                        OR 'fhir:' || source IN (SELECT dependency FROM down)
                        OR 'kafka' IN (SELECT dependency FROM down) END))) AS held,
            state = 'inferred' OR rules_at IS NOT NULL AS ruled,
            CASE WHEN error_class = 'worker_lost' THEN attempts ELSE 0 END AS losses
        FROM work
        WHERE state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked') {where}
    ), standing AS (
        SELECT id, scenario, matched_at, losses, waits, held, ruled, bool_or(going) OVER patient AS going,
            coalesce(min(id) FILTER (WHERE held) OVER patient < id, false) AS behind,
            coalesce(min(id) FILTER (WHERE parked) OVER patient < id, false) AS for_a_person
        FROM open WINDOW patient AS (PARTITION BY scenario, patient_key)
    ), judged AS (
        SELECT id, scenario, matched_at, losses, waits, behind, for_a_person,
            NOT going AND NOT coalesce(held, false) AND NOT (behind AND ruled) AS ready
        FROM standing
    )
"""
)

READY = text(
    _OPEN.format(where="AND scenario = :scenario")
    + "SELECT id, losses, behind FROM judged WHERE waits AND ready ORDER BY id LIMIT :size"
)

BACKLOG = text(
    _OPEN.format(where="")
    + """, counted AS (
        SELECT scenario, count(*) FILTER (WHERE ready) AS ready, count(*) AS waiting,
            count(*) FILTER (WHERE for_a_person) AS for_a_person,
            coalesce(extract(epoch FROM now() - min(matched_at) FILTER (WHERE ready)), 0)::float AS oldest
        FROM judged WHERE waits GROUP BY scenario
    ), open_runs AS (
        SELECT scenario, count(*) AS n,
            count(*) FILTER (WHERE NOT withdrawn AND stays_until > clock_timestamp()) AS staying
        FROM runs WHERE closed_at IS NULL GROUP BY scenario
    )
    SELECT scenario, coalesce(ready, 0) AS ready, coalesce(oldest, 0) AS oldest, coalesce(waiting, 0) AS waiting,
        coalesce(for_a_person, 0) AS for_a_person, coalesce(n, 0) AS open_runs, coalesce(staying, 0) AS staying
    FROM counted FULL JOIN open_runs USING (scenario) ORDER BY scenario
    """
)

# Drafts that are computed keep their state: a run that takes them only has to write them.
_BOUND = (
    "run_id = :run_id,"
    " tried_in = (tried_in || CAST(:run_id AS text))[greatest(cardinality(tried_in) - 6, 1):],"  # the last 8 of them
    " rules_only = id = ANY(CAST(:rules_only AS bigint[])),"
    " dispatched_at = coalesce(dispatched_at, clock_timestamp())"
)

BIND = text(
    f"UPDATE work SET {_BOUND}, state = CASE state WHEN 'inferred' THEN state ELSE 'dispatched' END"
    " WHERE id = ANY(CAST(:ids AS bigint[]))"
    " RETURNING CASE WHEN :traces THEN"
    " (SELECT traceparent FROM events WHERE events.event_id = work.event_id) END AS traceparent"
)

_CLAIMED = """
    RETURNING work.id, work.scenario, work.scenario_version, work.state, work.attempts, work.lease,
        work.rules_written_at, work.drafts, work.replay, work.run_id, work.tries, work.rules_only, work.rules_at,
        coalesce(work.asked, work.verdicts, work.counted) IS NOT NULL AS tallied,
        e.event_id, e.source, e.fhir_version, e.resource_type, e.resource_id, e.version_id, e.last_updated, e.change,
        e.patient_key, e.topic, e.partition, e."offset", e.received_at, e.durable_at,
        e.traceparent, e.tracestate
"""

# Drafts that are computed keep their state, and the time at which the try began that computed them.
_BEGIN = """
    state = CASE state WHEN 'inferred' THEN state ELSE 'running' END,
    lease = :lease, lease_until = now() + make_interval(secs => :seconds),
    started_at = CASE state WHEN 'inferred' THEN started_at ELSE clock_timestamp() END
"""

CLAIM = text(
    f"""
    WITH begun AS (
        UPDATE runs SET started_at = coalesce(started_at, clock_timestamp()) WHERE run_id = :run_id AND size > 0
    )
    UPDATE work SET {_BEGIN} FROM events e
    WHERE e.event_id = work.event_id AND work.run_id = :run_id AND work.state IN ('dispatched', 'running', 'inferred')
    """
    + _CLAIMED
)

# A run that stays binds rows and claims them at once.
TAKE = text(
    f"""
    UPDATE work SET {_BOUND}, {_BEGIN} FROM events e
    WHERE e.event_id = work.event_id AND work.id = ANY(CAST(:ids AS bigint[]))
    """
    + _CLAIMED
)

RENEW = text(
    """
    UPDATE work SET lease_until = now() + make_interval(secs => :seconds)
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS text[])) AS held (id, lease)
    WHERE work.id = held.id AND work.lease = held.lease
    RETURNING work.id
    """
)
