"""The ledger's SQL about runs that stay; all times are the database's clock."""

from __future__ import annotations

from sqlalchemy import text

#: Channel on which it is told that rows of a scenario may be ready; its payload is the scenario, or nothing for any.
CHANNEL = "careloom_ready"

NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', scenario) FROM unnest(CAST(:scenarios AS text[])) AS s (scenario)")

# Refused: by a withdrawal, a closed run, a switch, another process that has begun to stay for this run, too many that
# go before (a higher rank, or an older run of the same), and while runs wait for a slot and none is free: as many of
# the stayers that come last leave as there are runs that wait.
STAY = text(
    """
    UPDATE runs SET stayer = :stayer, rank = :rank,
        stays_until = clock_timestamp() + make_interval(secs => :seconds)
    WHERE run_id = :run_id AND closed_at IS NULL AND NOT withdrawn AND (:begins OR stayer = :stayer)
        AND NOT EXISTS (SELECT 1 FROM switches WHERE kind = 'everything' OR (kind = 'scenario' AND name = scenario))
        AND :most > (
            SELECT count(*) FROM runs o
            WHERE o.closed_at IS NULL AND o.stays_until > clock_timestamp() AND o.run_id <> :run_id
                AND (-o.rank, o.decided_at, o.run_id) < (-:rank, runs.decided_at, runs.run_id)
        )
        AND (
            (SELECT count(*) FROM runs s WHERE s.closed_at IS NULL AND s.started_at IS NOT NULL) < :slots
            OR (SELECT count(*) FROM runs w WHERE w.closed_at IS NULL AND w.started_at IS NULL
                    AND w.posted_at < clock_timestamp() - make_interval(secs => :patience))
                <= (SELECT count(*) FROM runs b
                    WHERE b.closed_at IS NULL AND b.stays_until > clock_timestamp() AND b.run_id <> :run_id
                        AND (-b.rank, b.decided_at, b.run_id) > (-:rank, runs.decided_at, runs.run_id))
        )
    """
)

# Locks the run, so that nobody closes or releases it while rows are bound to it; it must be this process that stays.
HOLD = text(
    """
    SELECT scenario FROM runs
    WHERE run_id = :run_id AND stayer = :stayer AND closed_at IS NULL AND NOT withdrawn
        AND stays_until > clock_timestamp()
    FOR UPDATE
    """
)

LEAVE = text("UPDATE runs SET stays_until = NULL, stayer = NULL WHERE run_id = :run_id AND stayer = :stayer")

WITHDRAW = text(
    """
    UPDATE runs SET withdrawn = true, stays_until = NULL
    WHERE closed_at IS NULL AND NOT withdrawn
        AND (CAST(:scenarios AS text[]) IS NULL OR scenario = ANY(CAST(:scenarios AS text[])))
    RETURNING scenario, stayer IS NOT NULL AS stayed
    """
)

# A standing run begins without rows: who carries it says so, and stays from that moment on.
STANDS = text(
    """
    UPDATE runs SET started_at = coalesce(started_at, clock_timestamp()),
        stays_until = clock_timestamp() + make_interval(secs => :seconds)
    WHERE run_id = :run_id AND size = 0 AND closed_at IS NULL AND NOT withdrawn
    RETURNING scenario
    """
)

OPEN_RUN = text("SELECT 1 FROM runs WHERE scenario = :scenario AND closed_at IS NULL LIMIT 1")

TAKEN = text("UPDATE runs SET taken = taken + :number WHERE run_id = :run_id")
