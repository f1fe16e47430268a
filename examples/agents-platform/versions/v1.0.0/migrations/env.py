"""Migrates the database at MIGRATIONS_URL, each migration in a transaction of its own."""

import os

from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(os.environ["MIGRATIONS_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
