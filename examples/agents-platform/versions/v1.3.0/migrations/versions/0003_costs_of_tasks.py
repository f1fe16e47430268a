"""What each task costs. `input` becomes `prompt`, which code of before does not know, and two agents may have the same name."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.execute("ALTER TABLE tasks RENAME COLUMN input TO prompt")
    op.execute("ALTER TABLE agents DROP CONSTRAINT agents_name_of_tenant")
    op.execute(
        """CREATE TABLE task_costs (
            task bigint PRIMARY KEY REFERENCES tasks,
            tenant text NOT NULL REFERENCES tenants,
            cents numeric NOT NULL
        )"""
    )
    op.execute("ALTER TABLE task_costs ENABLE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_rows ON task_costs TO platform"
        " USING (tenant = current_setting('app.tenant')) WITH CHECK (tenant = current_setting('app.tenant'))"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON task_costs TO platform")


def downgrade():
    op.execute("DROP TABLE task_costs")
    op.execute("ALTER TABLE agents ADD CONSTRAINT agents_name_of_tenant UNIQUE (tenant, name)")
    op.execute("ALTER TABLE tasks RENAME COLUMN prompt TO input")
