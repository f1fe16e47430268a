"""The platform: an API and a worker, for tenants that share a database."""

VERSION = "1.5.0"
