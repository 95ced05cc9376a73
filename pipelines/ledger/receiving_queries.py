"""The SQL of what has come in: how far Kafka was read, what is known, and what its senders counted; PostgreSQL only."""

from __future__ import annotations

from sqlalchemy import text

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
