"""The stack as plain processes: engines, Locust, exporters and Prometheus under supervisor, with no Docker and no GPU.

Nothing is imported here: the engines' launchers run in environments that have none of our packages.
"""
