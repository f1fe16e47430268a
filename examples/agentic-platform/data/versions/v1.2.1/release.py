VERSION = "v1.2.1"
SCHEMA = "0004"  # the migration without which this code does not run
