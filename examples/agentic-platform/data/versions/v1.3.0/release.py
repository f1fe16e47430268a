VERSION = "v1.3.0"
SCHEMA = "0005"  # the migration without which this code does not run
