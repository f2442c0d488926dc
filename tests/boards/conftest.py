from tests.prometheus.conftest import prometheus_binary

__all__ = ["prometheus_binary"]
