"""The SQL of what people do: dead letters of both kinds, replay, disclosures; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

from pipelines.ledger.tries import APPEND

# --- dead letters: work that is parked -------------------------------------------------------------------------------

# Held back are later rows of the same patient in the same scenario. Drafts that were computed say where it failed.
_DEAD_LETTER = """
    SELECT w.id, w.event_id, w.scenario, w.scenario_version, w.stage, w.error_class, w.error, w.attempts, w.tries,
        w.matched_at,
        CASE WHEN w.drafts IS NULL THEN 'infer' ELSE 'write_back' END AS step, w.replay, w.model, w.tried_in,
        w.received_at, w.durable_at, w.dispatched_at, w.started_at, w.rules_written_at, w.context_at, w.answered_at,
        w.guarded_at, w.failing_since, w.failed_at, e.source, e.resource_type, e.topic, e.partition, e."offset",
        (SELECT count(*) FROM work b WHERE b.scenario = w.scenario AND b.patient_key = w.patient_key AND b.id > w.id
            AND b.state IN ('waiting', 'inferred') AND b.run_id IS NULL) AS held_back
    FROM work w JOIN events e USING (event_id)
"""

_CHOSEN = """
    state = 'parked' AND (CAST(:scenario AS text) IS NULL OR scenario = :scenario)
    AND (CAST(:error_class AS text) IS NULL OR error_class = :error_class)
    AND (CAST(:among AS text[]) IS NULL OR scenario = ANY(:among))
"""

# The planner keeps the correlated count behind the choice and the order: one probe of `work_open` for each row shown.
DEAD_LETTERS = text(
    f"{_DEAD_LETTER} WHERE w.id IN (SELECT id FROM work WHERE {_CHOSEN} ORDER BY id LIMIT :size) ORDER BY w.id"
)

DEAD_LETTER = text(f"{_DEAD_LETTER} WHERE w.id = :id AND w.state = 'parked'")

DEAD_LETTER_COUNT = text(f"SELECT count(*) FROM work WHERE {_CHOSEN}")

# What was computed is thrown away with what is given up: drafts hold patient data.
_DECIDE = (
    """
    UPDATE work SET state = :state, error = :note, attempts = 0, tries = 0, failing_since = NULL, failed_at = NULL,
        waits_for = NULL, run_id = NULL, not_before = now(),
        drafts = CASE WHEN :state = 'discarded' THEN NULL ELSE drafts END,
        journal = """
    + APPEND.format(
        tried="jsonb_build_object('end', CASE WHEN :state = 'discarded' THEN 'discarded' ELSE 'retried' END)"
    )
    + """,
        finished_at = CASE WHEN :state = 'discarded' THEN clock_timestamp() END
"""
)

DECIDE = text(f"{_DECIDE} WHERE id = :id AND state = 'parked'")

DECIDE_CHOSEN = text(f"{_DECIDE} WHERE {_CHOSEN}")

# The event of any piece of work, in whatever state: what somebody asks to see the bytes of.
EVENT_OF_WORK = text("SELECT e.* FROM work w JOIN events e USING (event_id) WHERE w.id = :id")

# --- dead letters: records that are no events ------------------------------------------------------------------------

_POISON = """
    SELECT id, topic, partition, "offset", record_at, reason, at, copy_topic, copy_partition, copy_offset, tries, note
    FROM poison
"""

_CHOSEN_POISON = "state = 'open' AND (CAST(:reason AS text) IS NULL OR reason = :reason)"

POISON = text(f"{_POISON} WHERE {_CHOSEN_POISON} ORDER BY id")

POISON_PAGE = text(f"{_POISON} WHERE {_CHOSEN_POISON} AND id > :after ORDER BY id LIMIT :size")

POISON_COUNT = text(f"SELECT count(*) FROM poison WHERE {_CHOSEN_POISON}")

POISON_ONE = text(f"{_POISON} WHERE id = :id AND state = 'open'")

POISON_LOCKED = text(f"{_POISON} WHERE id = :id AND state = 'open' FOR UPDATE")

POISON_DISCARD = text("UPDATE poison SET state = 'discarded', note = :note WHERE id = :id AND state = 'open'")

POISON_DISCARD_CHOSEN = text(f"UPDATE poison SET state = 'discarded', note = :note WHERE {_CHOSEN_POISON}")

POISON_RECORDED = text("UPDATE poison SET state = 'recorded', tries = tries + 1, note = :note WHERE id = :id")

POISON_TRIED = text(
    "UPDATE poison SET tries = least(tries + 1, 32767), reason = :reason, note = :note"
    " WHERE id = :id AND state = 'open'"
)

# --- replay ----------------------------------------------------------------------------------------------------------

# One at a time judges and adds rows, or two would each add one for the same event and scenario.
LOCK_REPLAY = text("SELECT pg_advisory_xact_lock(hashtextextended('careloom.replay', 0))")

_REPLAYED = """
    FROM events WHERE change = 'written' AND resource_type = ANY(CAST(:types AS text[]))
        AND durable_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
        AND durable_at < CAST(:until AS timestamptz)
        AND (CAST(:source AS text) IS NULL OR source = :source)
        AND (CAST(:event_id AS text) IS NULL OR event_id = :event_id)
"""

REPLAY_COUNT = text(f"SELECT count(*) {_REPLAYED}")

# In the order in which Kafka had them, which keeps each patient's: `events_in_order`.
REPLAY_PAGE = text(
    f"""
    SELECT * {_REPLAYED}
        AND (durable_at, partition, "offset", event_id)
            > (CAST(:after_at AS timestamptz), :after_partition, :after_offset, :after_id)
    ORDER BY durable_at, partition, "offset", event_id LIMIT :size
    """
)

EVENT_KNOWN = text("SELECT change, resource_type FROM events WHERE event_id = :event_id")

# How each wanted (event, scenario) stands, whatever version it was for.
STANDING = text(
    """
    SELECT m.n, max(w.id) FILTER (WHERE w.state = 'parked') AS parked,
        coalesce(bool_or(w.state IN ('waiting', 'dispatched', 'running', 'inferred')), false) AS under_way,
        coalesce((array_agg(w.state ORDER BY w.id DESC))[1] = 'discarded', false) AS discarded
    FROM unnest(CAST(:event_ids AS text[]), CAST(:scenarios AS text[])) WITH ORDINALITY AS m (event_id, scenario, n)
    LEFT JOIN work w ON w.event_id = m.event_id AND w.scenario = m.scenario
    GROUP BY m.n ORDER BY m.n
    """
)

# Their times begin with the replay: a week-old event that is run again today is not a week late.
REPLAY_WORK = text(
    """
    INSERT INTO work (event_id, scenario, scenario_version, stage, patient_key, source, state, not_before, received_at,
        durable_at, matched_at, replay)
    SELECT e.event_id, m.scenario, m.version, m.stage, e.patient_key, e.source, 'waiting', now(), now(), now(), now(),
        :replay
    FROM unnest(CAST(:event_ids AS text[]), CAST(:scenarios AS text[]), CAST(:versions AS text[]),
        CAST(:stages AS text[])) WITH ORDINALITY AS m (event_id, scenario, version, stage, n)
    JOIN events e USING (event_id)
    ORDER BY m.n
    ON CONFLICT ON CONSTRAINT work_identity DO NOTHING
    """
)

REPLAY_ROWS = text("UPDATE replays SET rows = rows + :rows WHERE id = :replay")

REPLAY_ENDED = text("UPDATE replays SET finished_at = now() WHERE id = :replay")

MOVED = text('UPDATE events SET topic = :topic, partition = :partition, "offset" = :offset WHERE event_id = :event_id')

WAITING = text("SELECT count(*) FROM work WHERE state = 'waiting'")
