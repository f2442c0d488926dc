from tests.prometheus.conftest import prometheus_binary, promtool

__all__ = ["prometheus_binary", "promtool"]
