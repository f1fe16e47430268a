"""Tenants, their agents and the tasks of these; what belongs to a tenant is seen and written by that tenant alone."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE tenants (name text PRIMARY KEY, key_sha256 text NOT NULL)")
    op.execute(
        """CREATE TABLE agents (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant text NOT NULL REFERENCES tenants,
            name text NOT NULL,
            created timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT agents_name_of_tenant UNIQUE (tenant, name)
        )"""
    )
    op.execute(
        """CREATE TABLE tasks (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant text NOT NULL REFERENCES tenants,
            agent bigint NOT NULL REFERENCES agents,
            input text NOT NULL,
            state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'done')),
            output text,
            created timestamptz NOT NULL DEFAULT now()
        )"""
    )
    op.execute("CREATE INDEX tasks_newest ON tasks (tenant, id DESC)")
    for table, column in (("tenants", "name"), ("agents", "tenant"), ("tasks", "tenant")):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_rows ON {table} TO platform"
            f" USING ({column} = current_setting('app.tenant')) WITH CHECK ({column} = current_setting('app.tenant'))"
        )
    op.execute("GRANT SELECT ON tenants TO platform")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON agents, tasks TO platform")


def downgrade():
    op.execute("DROP TABLE tasks")
    op.execute("DROP TABLE agents")
    op.execute("DROP TABLE tenants")
