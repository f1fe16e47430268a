"""agents and tasks"""
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table(
        "agents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("agent", sa.Integer, sa.ForeignKey("agents.id"), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
    )


def downgrade():
    op.drop_table("tasks")
    op.drop_table("agents")
