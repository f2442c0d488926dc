"""The boards as the JSON that Grafana reads: building it, and comparing it with what is committed."""
