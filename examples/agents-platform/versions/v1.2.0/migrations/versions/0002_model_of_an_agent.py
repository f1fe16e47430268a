"""Each agent may have a model of its own. Code that does not know of it goes on working."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("ALTER TABLE agents ADD COLUMN model text")


def downgrade():
    op.execute("ALTER TABLE agents DROP COLUMN model")
