"""The SQL of newer and older versions of a resource, and of what they do to each other's drafts; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text


def _same(one: str, other: str) -> str:
    """Two events are versions of one resource."""
    alike = " AND ".join(f"{one}.{name} = {other}.{name}" for name in ("source", "resource_type", "resource_id"))
    return f"{alike} AND {one}.event_id <> {other}.event_id"


def _age(event: str) -> str:
    """What tells versions of one resource apart: the greater one is the newer."""
    first = f"coalesce({event}.last_updated, {event}.durable_at), coalesce({event}.version_number, -1)"
    return f'({first}, {event}.durable_at, {event}.partition, {event}."offset")'


# "Newer" is told by meta.lastUpdated (by the time of arrival where there is none), within one instant by a counting
# version id, and without either by the order of arrival. This is a total order, so that exactly one version of a
# resource is superseded by no other: tested pair by pair with different yardsticks, three versions could each
# supersede the next, and none would be left.
SUPERSEDED = text(
    f"""
    SELECT w.id FROM work w JOIN events e USING (event_id)
    WHERE w.id = ANY(CAST(:ids AS bigint[])) AND e.resource_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM events n
        WHERE {_same("n", "e")} AND {_age("n")} > {_age("e")}
    )
    """
)

# The same test for one leased row, together with its lease; with the mark that its transaction may be on its way, and
# with the marks of older versions in the same scenario that nobody has taken off.
# An older version's row has lost its lease before a newer one is in a run: so its mark is seen here, or it gets none.
CONFIRM = text(
    f"""
    WITH own AS (
        UPDATE work SET lease_until = now() + make_interval(secs => :seconds),
            on_wire = CASE WHEN newer.there THEN array_remove(on_wire, CAST(:mark AS text))
                ELSE (array_remove(on_wire, CAST(:mark AS text)) || CAST(:mark AS text))
                    [greatest(cardinality(on_wire) - 14, 1):] END
        FROM (
            SELECT EXISTS (
                SELECT 1 FROM work w JOIN events e USING (event_id)
                JOIN events n ON {_same("n", "e")}
                WHERE w.id = :id AND {_age("n")} > {_age("e")}
            ) AS there
        ) newer
        WHERE work.id = :id AND work.lease = :lease
        RETURNING work.event_id, work.scenario, newer.there
    )
    SELECT own.there AS superseded, older.id AS older_id, older.on_wire,
        older.event_id || ':' || older.scenario || ':' || older.scenario_version AS identity
    FROM own LEFT JOIN LATERAL (
        SELECT o.* FROM events e
        JOIN events b ON {_same("b", "e")}
        JOIN work o ON o.event_id = b.event_id AND o.scenario = own.scenario AND cardinality(o.on_wire) > 0
        WHERE e.event_id = own.event_id AND NOT own.there AND {_age("b")} < {_age("e")}
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
