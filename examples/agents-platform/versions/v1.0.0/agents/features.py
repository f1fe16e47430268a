"""What can be switched off: for each path below an agent, its flag and what answers."""

ROUTES = {}
