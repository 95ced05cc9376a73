"""In which hop of the way a try failed; what was counted before stands in the likeliest hop of its class."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("ALTER TABLE failures ADD COLUMN hop text")
    op.execute(
        "UPDATE failures SET hop = CASE"
        " WHEN error_class IN ('model_unavailable', 'model_timeout', 'model_rejected', 'scenario_error', 'deadline')"
        " THEN 'answered'"
        " WHEN error_class = 'model_invalid_output' THEN 'guarded'"
        " WHEN error_class = 'fhir_conflict' THEN 'written'"
        " WHEN error_class = 'worker_lost' THEN 'started'"
        " ELSE 'context' END"
    )
    op.execute("ALTER TABLE failures DROP CONSTRAINT failures_pkey, ADD PRIMARY KEY (scenario, error_class, hop)")


def downgrade() -> None:
    """Take back; sums stay."""
    op.execute(
        "CREATE TABLE summed AS SELECT scenario, error_class, sum(count)::bigint AS count FROM failures GROUP BY 1, 2"
    )
    op.execute("DELETE FROM failures")
    op.execute("ALTER TABLE failures DROP CONSTRAINT failures_pkey, DROP COLUMN hop")
    op.execute("INSERT INTO failures (scenario, error_class, count) SELECT scenario, error_class, count FROM summed")
    op.execute("ALTER TABLE failures ADD PRIMARY KEY (scenario, error_class)")
    op.execute("DROP TABLE summed")
