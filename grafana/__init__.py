"""Grafana: provisioning, the JSON of the boards (`dashboards/`), what builds it of them, and marks of runs."""
