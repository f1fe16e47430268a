//! Small projects as their tools make them.

/// What `alembic init` makes, as far as it is needed.
pub const ALEMBIC: [(&str, &str); 3] = [
    ("alembic.ini", "[alembic]\nscript_location = %(here)s/migrations\n"),
    (
        "migrations/env.py",
        "\
import os
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(os.environ['DATABASE_URL'].replace('postgresql://', 'postgresql+psycopg://'))
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
",
    ),
    ("migrations/script.py.mako", ""),
];

pub const MANAGE: &str = "\
import os, sys
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'settings')
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
";

pub const DJANGO_SETTINGS: &str = "\
import os
from urllib.parse import urlsplit, unquote, parse_qs
url = urlsplit(os.environ['DATABASE_URL'])
query = parse_qs(url.query)
DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': url.path[1:], 'USER': url.username,
    'PASSWORD': unquote(url.password), 'HOST': query['host'][0], 'PORT': query['port'][0]}}
INSTALLED_APPS = ['django.contrib.contenttypes', 'shop']
DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'
SECRET_KEY = 'only for tests'
USE_TZ = True
";
