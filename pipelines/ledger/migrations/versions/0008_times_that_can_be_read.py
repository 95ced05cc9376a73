"""Times that a wrong clock wrote and nobody can read back order nothing: they are taken out."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute(
        "UPDATE events SET last_updated = NULL"
        " WHERE last_updated < '1900-01-01T00:00:00Z' OR last_updated >= '3000-01-01T00:00:00Z'"
    )


def downgrade() -> None:
    """Nothing is to be taken back: the times meant nothing."""
