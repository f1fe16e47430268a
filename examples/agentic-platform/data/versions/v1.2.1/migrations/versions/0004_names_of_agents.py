"""agents have names of their own; of several with the same, the later ones get their number behind it"""
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade():
    op.execute(
        "UPDATE agents SET name = name || ' ' || id"
        " WHERE EXISTS (SELECT 1 FROM agents first WHERE first.name = agents.name AND first.id < agents.id)"
    )
    op.create_unique_constraint("agents_name_unique", "agents", ["name"])


def downgrade():
    op.drop_constraint("agents_name_unique", "agents")
