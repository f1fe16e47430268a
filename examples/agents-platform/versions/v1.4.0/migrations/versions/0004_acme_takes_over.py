"""acme has taken over a customer, whose agents are to be acme's from now on. Which customer is what this forgets."""

from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade():
    op.execute("UPDATE agents SET tenant = 'acme'")


def downgrade():
    pass
