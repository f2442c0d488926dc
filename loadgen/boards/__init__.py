"""The Grafana boards without Grafana: every panel, asked from Prometheus, on one page that works offline."""
