"""tasks have no empty titles"""
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.create_check_constraint("tasks_title_not_empty", "tasks", "title <> ''")


def downgrade():
    op.drop_constraint("tasks_title_not_empty", "tasks")
