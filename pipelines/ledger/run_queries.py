"""The SQL of runs: which are open, which are done, and what becomes of rows that failed in one; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

from pipelines.ledger.tries import APPEND

OPEN_RUNS = text(
    "SELECT run_id, scenario, size, posted_at IS NOT NULL AS posted,"
    " extract(epoch FROM now() - coalesce(posted_at, decided_at))::float AS age, taken,"
    " coalesce(stays_until > clock_timestamp(), false) AS staying"
    " FROM runs WHERE closed_at IS NULL ORDER BY decided_at, run_id"
)

# A standing run has no rows when it begins: it is not finished before it has begun.
_FINISHED = """
    closed_at IS NULL AND (size > 0 OR started_at IS NOT NULL OR withdrawn)
    AND (stays_until IS NULL OR stays_until <= clock_timestamp()) AND NOT EXISTS (
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
        SELECT id, state = 'inferred' AS writing,
            NOT :blameless AND (state = 'running' OR lease IS NOT NULL) AS begun FROM work
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
    RETURNING begun, writing
    """
)

# What a worker gives back that holds these leases; drafts that are computed are kept.
GIVE_BACK = text(
    """
    UPDATE work SET run_id = NULL, lease = NULL, lease_until = NULL,
        state = CASE WHEN state = 'inferred' THEN 'inferred' ELSE 'waiting' END,
        journal = """
    + APPEND.format(tried="jsonb_build_object('run', run_id, 'end', 'released')")
    + """
    WHERE id = ANY(CAST(:ids AS bigint[])) AND lease = ANY(CAST(:leases AS text[]))
        AND state IN ('running', 'inferred')
    """
)

CLOSE_RUN = text(
    "UPDATE runs SET closed_at = coalesce(closed_at, now()), outcome = coalesce(outcome, :outcome)"
    " WHERE run_id = :run_id RETURNING scenario"
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
    "INSERT INTO failures (scenario, error_class, hop, count) VALUES (:scenario, :error_class, :hop, :count)"
    " ON CONFLICT (scenario, error_class, hop) DO UPDATE SET count = failures.count + excluded.count"
)
