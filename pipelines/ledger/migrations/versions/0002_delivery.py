"""What delivery under faults, replay, guards and traces add to the first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _tallies()
    _dead_letters_and_replay()
    _waiting()


def _waiting() -> None:
    op.add_column("progress", sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False))
    false = sa.text("false")
    op.add_column("progress", sa.Column("committed_once", sa.Boolean(), server_default=false, nullable=False))
    op.execute("UPDATE progress SET committed_once = true")  # it used to be committed before the first record was read
    op.add_column("work", sa.Column("source", sa.Text(), nullable=True))
    op.execute("UPDATE work SET source = events.source FROM events WHERE events.event_id = work.event_id")
    op.add_column("work", sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("work", sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("work", sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("work", sa.Column("waits_for", sa.Text(), nullable=True))
    op.add_column("work", sa.Column("rules_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("work", sa.Column("rules_only", sa.Boolean(), server_default=false, nullable=False))
    op.add_column("work", sa.Column("late", sa.Boolean(), server_default=false, nullable=False))
    op.create_table(
        "breakers",
        sa.Column("dependency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'closed'"), nullable=False),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("several", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("last_work", sa.BigInteger(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("openings", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe", sa.Text(), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("dependency"),
    )


def _dead_letters_and_replay() -> None:
    op.add_column("progress", sa.Column("reread", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index("events_in_order", "events", ["durable_at", "partition", "offset"])
    op.add_column("work", sa.Column("replay", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("work", sa.Column("tried_in", postgresql.ARRAY(sa.Text()), nullable=True))
    op.drop_constraint("work_identity", "work")
    op.create_unique_constraint("work_identity", "work", ["event_id", "scenario", "scenario_version", "replay"])
    op.create_table(
        "poison",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("record_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("copy_topic", sa.Text(), nullable=True),
        sa.Column("copy_partition", sa.Integer(), nullable=True),
        sa.Column("copy_offset", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("topic", "partition", "offset", "record_at", name="poison_position"),
    )
    op.create_index("poison_open", "poison", ["id"], postgresql_where=sa.text("state = 'open'"))
    op.create_table(
        "replays",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "disclosures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _tallies() -> None:
    for name in ("asked", "verdicts", "counted"):
        op.add_column("work", sa.Column(name, postgresql.JSONB(astext_type=sa.Text()), nullable=True))
