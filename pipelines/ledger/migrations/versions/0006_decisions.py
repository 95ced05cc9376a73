"""What persons decide on drafts, by which Task they were asked, and which weights had answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    time = sa.DateTime(timezone=True)
    op.add_column("work", sa.Column("model_version", sa.Text(), nullable=True))
    op.add_column("work", sa.Column("approval", sa.Text(), nullable=True))
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("work_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.Column("scenario_version", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=True),
        sa.Column("decided_at", time, nullable=False),
        sa.Column("received_at", time, nullable=False),
        sa.Column("folded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(["work_id"], ["work.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", "scenario", "scenario_version", name="decisions_identity"),
    )
    op.create_index("decisions_to_fold", "decisions", ["id"], postgresql_where=sa.text("NOT folded"))


def downgrade() -> None:
    """Take back."""
    op.drop_table("decisions")
    op.drop_column("work", "approval")
    op.drop_column("work", "model_version")
