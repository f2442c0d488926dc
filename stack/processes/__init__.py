"""The stack as plain processes: engines, Locust, exporters and Prometheus under supervisor, without Docker.

Nothing is imported here: the engines' launchers run in environments that have none of our packages.
"""
