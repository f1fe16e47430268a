"""agents have names of their own"""
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade():
    op.create_unique_constraint("agents_name_unique", "agents", ["name"])


def downgrade():
    op.drop_constraint("agents_name_unique", "agents")
