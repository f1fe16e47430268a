VERSION = "v1.0.0"
SCHEMA = "0001"  # the migration without which this code does not run
