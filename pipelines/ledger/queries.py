"""The ledger's SQL that says more than the table definitions do; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

from pipelines.ledger.tries import APPEND

NEXT_OFFSET = text(
    "SELECT next_offset, epoch, committed_once FROM progress WHERE topic = :topic AND partition = :partition"
)

COMMITTED_ONCE = text(
    "INSERT INTO progress AS p (topic, partition, base_offset, next_offset, committed_once)"
    " VALUES (:topic, :partition, :offset, :offset, true)"
    " ON CONFLICT (topic, partition) DO UPDATE SET committed_once = true"
)

# The base moves with the position, so that next - base stays the number of records that were read. The epoch fences off
# who has read before the rewind, and who saw the same loss and is late with its own.
REWIND = text(
    "UPDATE progress SET base_offset = base_offset + (:offset - next_offset), next_offset = :offset, epoch = epoch + 1,"
    " committed_once = false"
    " WHERE topic = :topic AND partition = :partition AND (CAST(:epoch AS integer) IS NULL OR epoch = :epoch)"
)

LOCK_SCENARIO = text("SELECT pg_advisory_xact_lock(hashtextextended('careloom.take_run.' || :scenario, 0))")

SWITCHED_OFF = text(
    "SELECT 1 FROM switches WHERE kind = 'everything' OR (kind = 'scenario' AND name = :scenario) LIMIT 1"
)

# A row may be taken when no other row of its patient in its scenario is in a run, and none before it is parked or
# waits out a backoff: order is kept per patient, and a poison event holds back its own patient only. `losses` counts
# the workers that were lost over a row: it may be what killed them.
# What a row needs and is down holds it as well: reading from its source's server, or for drafts writing; Kafka; and
# what it was last seen to wait for. The model is known from that alone, so that every row gets one run for its rules.
# A row that nothing holds, but that stands behind one that is held, gets a run for its rules alone (`rules_only`).
# One sort of the open rows, whatever the planner knows of them: as a correlated NOT EXISTS the same test took 72 s over
# 20,000 rows, and as a join with the two sets of what holds back 0.02 s, or 1.5 s where the planner took nested loops.
_OPEN = """
    WITH down AS MATERIALIZED (
        SELECT dependency FROM breakers
        WHERE (state = 'open' AND retry_at > now())
           OR (state = 'half_open' AND probe_until > now()
               AND probe IN (SELECT run_id FROM runs WHERE closed_at IS NULL))
    ), open AS (
        SELECT id, scenario, patient_key, matched_at, run_id IS NULL AND state <> 'parked' AS waits,
            run_id IS NOT NULL AND state <> 'parked' AS going,
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
            coalesce(min(id) FILTER (WHERE held) OVER patient < id, false) AS behind
        FROM open WINDOW patient AS (PARTITION BY scenario, patient_key)
    ), judged AS (
        SELECT id, scenario, matched_at, losses, waits, behind,
            NOT going AND NOT coalesce(held, false) AND NOT (behind AND ruled) AS ready
        FROM standing
    )
"""

READY = text(
    _OPEN.format(where="AND scenario = :scenario")
    + "SELECT id, losses, behind FROM judged WHERE waits AND ready ORDER BY id LIMIT :size"
)

BACKLOG = text(
    _OPEN.format(where="")
    + """, counted AS (
        SELECT scenario, count(*) FILTER (WHERE ready) AS ready, count(*) AS waiting,
            coalesce(extract(epoch FROM now() - min(matched_at) FILTER (WHERE ready)), 0)::float AS oldest
        FROM judged WHERE waits GROUP BY scenario
    ), open_runs AS (
        SELECT scenario, count(*) AS n,
            count(*) FILTER (WHERE NOT withdrawn AND stays_until > clock_timestamp()) AS staying
        FROM runs WHERE closed_at IS NULL GROUP BY scenario
    )
    SELECT scenario, coalesce(ready, 0) AS ready, coalesce(oldest, 0) AS oldest, coalesce(waiting, 0) AS waiting,
        coalesce(n, 0) AS open_runs, coalesce(staying, 0) AS staying
    FROM counted FULL JOIN open_runs USING (scenario) ORDER BY scenario
    """
)

# "Newer" is told by meta.lastUpdated (by the time of arrival where there is none), within one instant by a counting
# version id, and without either by the order of arrival. This is a total order, so that exactly one version of a
# resource is superseded by no other: tested pair by pair with different yardsticks, three versions could each
# supersede the next, and none would be left.
SUPERSEDED = text(
    """
    SELECT w.id FROM work w JOIN events e USING (event_id)
    WHERE w.id = ANY(CAST(:ids AS bigint[])) AND e.resource_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM events n
        WHERE n.source = e.source AND n.resource_type = e.resource_type AND n.resource_id = e.resource_id
          AND n.event_id <> e.event_id
          AND (coalesce(n.last_updated, n.durable_at), coalesce(n.version_number, -1), n.durable_at, n.partition,
               n."offset")
            > (coalesce(e.last_updated, e.durable_at), coalesce(e.version_number, -1), e.durable_at, e.partition,
               e."offset")
    )
    """
)

# The same test for one leased row, together with its lease; with the mark that its transaction may be on its way, and
# with the marks of older versions in the same scenario that nobody has taken off.
# An older version's row has lost its lease before a newer one is in a run: so its mark is seen here, or it gets none.
CONFIRM = text(
    """
    WITH own AS (
        UPDATE work SET lease_until = now() + make_interval(secs => :seconds),
            on_wire = CASE WHEN newer.there THEN array_remove(on_wire, CAST(:mark AS text))
                ELSE (array_remove(on_wire, CAST(:mark AS text)) || CAST(:mark AS text))
                    [greatest(cardinality(on_wire) - 14, 1):] END
        FROM (
            SELECT EXISTS (
                SELECT 1 FROM work w JOIN events e USING (event_id)
                JOIN events n ON n.source = e.source AND n.resource_type = e.resource_type
                    AND n.resource_id = e.resource_id AND n.event_id <> e.event_id
                WHERE w.id = :id
                  AND (coalesce(n.last_updated, n.durable_at), coalesce(n.version_number, -1), n.durable_at,
                       n.partition, n."offset")
                    > (coalesce(e.last_updated, e.durable_at), coalesce(e.version_number, -1), e.durable_at,
                       e.partition, e."offset")
            ) AS there
        ) newer
        WHERE work.id = :id AND work.lease = :lease
        RETURNING work.event_id, work.scenario, newer.there
    )
    SELECT own.there AS superseded, older.id AS older_id, older.on_wire,
        older.event_id || ':' || older.scenario || ':' || older.scenario_version AS identity
    FROM own LEFT JOIN LATERAL (
        SELECT o.* FROM events e
        JOIN events b ON b.source = e.source AND b.resource_type = e.resource_type AND b.resource_id = e.resource_id
            AND b.event_id <> e.event_id
        JOIN work o ON o.event_id = b.event_id AND o.scenario = own.scenario AND cardinality(o.on_wire) > 0
        WHERE e.event_id = own.event_id AND NOT own.there
          AND (coalesce(b.last_updated, b.durable_at), coalesce(b.version_number, -1), b.durable_at, b.partition,
               b."offset")
            < (coalesce(e.last_updated, e.durable_at), coalesce(e.version_number, -1), e.durable_at, e.partition,
               e."offset")
    ) older ON true
    ORDER BY older.id
    """
)

FENCED = text(
    "UPDATE work SET on_wire = ARRAY(SELECT m FROM unnest(on_wire) m WHERE m <> ALL(CAST(:marks AS text[])))"
    " WHERE id = :id"
)

STALE = text(
    "UPDATE work SET state = 'stale', run_id = NULL, lease = NULL, drafts = NULL, finished_at = clock_timestamp()"
    " WHERE id = ANY(CAST(:ids AS bigint[])) AND state = ANY(CAST(:states AS text[]))"
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

OPEN_RUNS = text(
    "SELECT run_id, scenario, size, posted_at IS NOT NULL AS posted,"
    " extract(epoch FROM now() - coalesce(posted_at, decided_at))::float AS age, taken,"
    " coalesce(stays_until > clock_timestamp(), false) AS staying"
    " FROM runs WHERE closed_at IS NULL ORDER BY decided_at, run_id"
)

_FINISHED = """
    closed_at IS NULL AND (stays_until IS NULL OR stays_until <= clock_timestamp()) AND NOT EXISTS (
        SELECT 1 FROM work w WHERE w.run_id = runs.run_id AND w.state IN ('dispatched', 'running', 'inferred'))
"""

# Two statements: who takes rows into a run that stays has its row locked, and only a statement that begins when the
# lock is had sees those rows.
FINISHED = text(f"SELECT run_id FROM runs WHERE {_FINISHED} FOR UPDATE SKIP LOCKED")

CLOSE_FINISHED = text(
    f"""
    UPDATE runs SET closed_at = now(), outcome = 'finished'
    WHERE run_id = ANY(CAST(:ids AS text[])) AND {_FINISHED}
    RETURNING run_id, scenario, size, posted_at IS NOT NULL AS posted,
        extract(epoch FROM now() - coalesce(posted_at, decided_at))::float AS age, taken
    """
)

LOCK_RUN = text("SELECT 1 FROM runs WHERE run_id = :run_id FOR UPDATE")

# What the lost worker had begun: rows it was inferring, and rows it had claimed to write.
RELEASE = text(
    """
    WITH held AS (
        SELECT id, state = 'running' OR lease IS NOT NULL AS begun FROM work
        WHERE run_id = :run_id AND state IN ('dispatched', 'running', 'inferred') FOR UPDATE
    ), judged AS (
        SELECT held.*, begun AND attempts + 1 >= :max_attempts AS dead FROM held JOIN work USING (id)
    )
    UPDATE work SET
        run_id = NULL, lease = NULL, lease_until = NULL,
        state = CASE WHEN dead THEN 'parked' WHEN state = 'inferred' THEN 'inferred' ELSE 'waiting' END,
        attempts = attempts + CASE WHEN begun THEN 1 ELSE 0 END,
        tries = tries + CASE WHEN begun THEN 1 ELSE 0 END,
        failed_at = CASE WHEN begun THEN clock_timestamp() ELSE failed_at END,
        failing_since = CASE WHEN begun THEN coalesce(failing_since, now()) ELSE failing_since END,
        error_class = CASE WHEN begun THEN :error_class ELSE error_class END,
        error = CASE WHEN begun THEN 'the worker was lost while it worked on this' ELSE error END,
        not_before = CASE WHEN begun THEN now() + make_interval(secs => :wait) ELSE not_before END,
        journal = """
    + APPEND.format(
        tried="jsonb_build_object('run', CAST(:run_id AS text), 'end', CASE WHEN dead THEN 'parked' WHEN begun"
        " THEN 'lost' ELSE 'released' END, 'class', CASE WHEN begun THEN CAST(:error_class AS text) END)"
    )
    + """
    FROM judged WHERE judged.id = work.id
    RETURNING begun
    """
)

CLOSE_RUN = text(
    "UPDATE runs SET closed_at = coalesce(closed_at, now()), outcome = coalesce(outcome, :outcome)"
    " WHERE run_id = :run_id RETURNING scenario"
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
        UPDATE runs SET started_at = coalesce(started_at, clock_timestamp()) WHERE run_id = :run_id
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

# What tells whether a failure is the event's own.
JUDGED = text(
    """
    SELECT w.tries, extract(epoch FROM now() - coalesce(w.failing_since, now()))::float AS failing_for,
        coalesce(b.succeeded_at > w.failed_at, false) AS served_others
    FROM work w LEFT JOIN breakers b ON b.dependency = :dependency
    WHERE w.id = :id
    """
)

COUNT_FAILURE = text(
    "INSERT INTO failures (scenario, error_class, count) VALUES (:scenario, :error_class, :count)"
    " ON CONFLICT (scenario, error_class) DO UPDATE SET count = failures.count + excluded.count"
)

KNOWN = text("SELECT event_id FROM events WHERE event_id = ANY(CAST(:ids AS text[]))")

# Returns how many numbers were skipped. A lower number is a redelivery and leaves the mark where it is, but for 1:
# a subscription that was made anew starts over.
EVENT_NUMBER = text(
    """
    WITH before AS (
        SELECT last_event_number FROM subscriptions WHERE source = :source AND subscription = :subscription FOR UPDATE
    ), skipped AS (
        SELECT greatest(:number - coalesce((SELECT last_event_number FROM before), :number - 1) - 1, 0) AS n
    )
    INSERT INTO subscriptions (source, subscription, last_event_number, seen_at)
    VALUES (:source, :subscription, :number, now())
    ON CONFLICT (source, subscription) DO UPDATE SET
        last_event_number = CASE WHEN :number = 1 THEN 1
                                 ELSE greatest(subscriptions.last_event_number, :number) END,
        seen_at = now(),
        gaps = subscriptions.gaps + CASE WHEN (SELECT n FROM skipped) > 0 THEN 1 ELSE 0 END,
        missed_events = subscriptions.missed_events + (SELECT n FROM skipped)
    RETURNING (SELECT n FROM skipped)
    """
)

RECONCILED = text("SELECT until FROM reconciled WHERE source = :source")

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

# --- monitoring ------------------------------------------------------------------------------------------------------

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
        w.verdicts, w.counted, w.finished_at, w.replay, w.late
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

OPEN_WORK = text(
    """
    SELECT scenario, stage, state, count(*) AS items,
        greatest(extract(epoch FROM now() - min(received_at)), 0)::float AS oldest
    FROM work WHERE state IN ('waiting', 'dispatched', 'running', 'inferred', 'parked')
    GROUP BY scenario, stage, state
    """
)

UNFOLDED = text("SELECT count(*) FROM work WHERE NOT folded AND state IN ('written', 'stale', 'discarded')")

POISON_OPEN = text("SELECT reason, count(*) AS n FROM poison WHERE state = 'open' GROUP BY reason")

FAILURES = text("SELECT scenario, error_class, count FROM failures")

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
