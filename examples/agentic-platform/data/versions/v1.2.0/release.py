VERSION = "v1.2.0"
SCHEMA = "0004"  # the migration without which this code does not run
