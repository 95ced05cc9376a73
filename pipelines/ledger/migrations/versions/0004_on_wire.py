"""Which transactions may be on their way to a FHIR server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("work", sa.Column("on_wire", postgresql.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("work", "on_wire")
