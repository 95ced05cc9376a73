"""The SQL of what persons decide on drafts: to note it, to count it once, and to tell it; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

# Of the work of an identity, replays included, the row that made the drafts: one that was told of the Task, and created
# something. Nobody decides on another source's drafts.
WORK_AND_VERDICT = text(
    """
    SELECT w.id, d.verdict FROM work w JOIN events e USING (event_id)
        LEFT JOIN decisions d USING (event_id, scenario, scenario_version)
    WHERE event_id = :event_id AND scenario = :scenario AND scenario_version = :version AND e.source = :source
    ORDER BY w.approval IS NOT NULL DESC, w.created > 0 DESC, w.replay DESC LIMIT 1
    """
)

# The first verdict on an identity counts: nothing is returned where there is one.
DECIDE = text(
    """
    INSERT INTO decisions (work_id, event_id, scenario, scenario_version, verdict, who, decided_at, received_at)
    VALUES (:work_id, :event_id, :scenario, :version, :verdict, :who, :decided_at, :received_at)
    ON CONFLICT ON CONSTRAINT decisions_identity DO NOTHING RETURNING id
    """
)

# Each after its piece of work: what is waited for was counted before it is no longer.
FOLD = text(
    """
    WITH taken AS MATERIALIZED (
        SELECT d.id FROM decisions d JOIN work w ON w.id = d.work_id WHERE NOT d.folded AND w.folded
        ORDER BY d.id LIMIT :size FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE decisions d SET folded = true FROM taken, work w WHERE d.id = taken.id AND w.id = d.work_id
    RETURNING w.scenario, w.model, w.model_version, d.verdict, d.decided_at, w.written_at,
        w.approval IS NOT NULL AS asked
    """
)

OF_EVENTS = text(
    """
    SELECT event_id, scenario, scenario_version, verdict, decided_at FROM decisions
    WHERE event_id = ANY(CAST(:event_ids AS text[])) ORDER BY id
    """
)
