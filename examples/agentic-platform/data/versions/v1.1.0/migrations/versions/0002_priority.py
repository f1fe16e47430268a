"""tasks have a priority: only added, so that v1.0.0 runs on it too"""
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("tasks", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))


def downgrade():
    op.drop_column("tasks", "priority")
