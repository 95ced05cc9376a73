"""Trace contexts of events, what became of each try of a row, and what held a scenario up before each of its runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("events", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("tracestate", sa.Text(), nullable=True))
    op.add_column("work", sa.Column("journal", postgresql.JSONB(), nullable=True))
    op.add_column("runs", sa.Column("held", postgresql.JSONB(), nullable=True))
