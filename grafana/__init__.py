"""Grafana: provisioning, the boards as code (`grafana.boards`) and the JSON that they build (`dashboards/`)."""
