"""results are no longer kept with tasks"""
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade():
    op.drop_column("tasks", "result")


def downgrade():
    op.add_column("tasks", sa.Column("result", sa.Text))
