"""Who has turned which switch when, and why: also of what is on again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; what is off now was switched off once."""
    op.create_table(
        "switchings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("off", sa.Boolean(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute(
        'INSERT INTO switchings (kind, name, off, "by", why, at)'
        ' SELECT kind, name, true, "by", why, since FROM switches ORDER BY since'
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("switchings")
