VERSION = "v1.1.0"
SCHEMA = "0002"  # the migration without which this code does not run
