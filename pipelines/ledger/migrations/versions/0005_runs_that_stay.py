"""Runs that stay after their rows are done, and take further ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    time = sa.DateTime(timezone=True)
    op.add_column("runs", sa.Column("started_at", time, nullable=True))
    op.add_column("runs", sa.Column("stayer", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("stays_until", time, nullable=True))
    op.add_column("runs", sa.Column("rank", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("runs", sa.Column("taken", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("runs", sa.Column("withdrawn", sa.Boolean(), server_default=sa.text("false"), nullable=False))
