"""Names, units and labels."""

import pytest

from exporters.ksana_names import UnnameableError, place_of
from exporters.otlp_decode import Stream


def place(name="m", unit="", kind="counter", attributes=(), resource=()):
    return place_of("ksana", Stream(tuple(resource), "s", name, unit, kind, tuple(attributes)))


@pytest.mark.parametrize(
    ("name", "unit", "family", "divisor"),
    [
        ("time_to_first_token_us", "", "ksana_time_to_first_token_seconds", 1e6),
        ("x_ms", "", "ksana_x_seconds", 1e3),
        ("x_ns", "", "ksana_x_seconds", 1e9),
        ("x_us_0", "", "ksana_x_seconds_0", 1e6),
        ("batch_scheduler_batch_size_0", "", "ksana_batch_scheduler_batch_size_0", 1),
        ("status", "", "ksana_status", 1),
        ("x", "us", "ksana_x_seconds", 1e6),
        ("x", "s", "ksana_x_seconds", 1),
        ("x_seconds", "s", "ksana_x_seconds", 1),
        ("x_us", "ms", "ksana_x_seconds", 1e3),
        ("x", "By", "ksana_x_bytes", 1),
        ("x_bytes", "By", "ksana_x_bytes", 1),
        ("x", "{token}", "ksana_x", 1),
        ("ksana_x", "", "ksana_x", 1),
        ("a.b-c/é", "", "ksana_a_b_c__", 1),
        ("x_total", "", "ksana_x", 1),
    ],
)
def test_families(name, unit, family, divisor):
    got = place(name, unit)
    assert (got.family, got.divisor) == (family, divisor)


def test_labels():
    got = place(attributes=[("instance", "h200"), ("a.b", "1"), ("a/b", "2"), ("engine", "x"), ("le", "y"),
                            ("__name__", "z"), ("1st", "w")],
                resource=[("service.instance.id", "i"), ("service.name", "unknown_service")])  # fmt: skip
    assert dict(got.labels[1:]) == {
        "instance": "h200",
        "a_b": "1;2",
        "exported_engine": "x",
        "exported_le": "y",
        "key___name__": "z",
        "key_1st": "w",
        "service_instance_id": "i",
    }
    assert got.labels[0] == ("engine", "ksana")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 121},
        {"attributes": [("k", "v" * 201)]},
        {"attributes": [("k" * 121, "v")]},
        {"resource": [("host.name", "h" * 4097)]},
        {"unit": "u" * 4097},
        {"attributes": [(f"k{number}", "v") for number in range(13)]},
    ],
)
def test_limits(wrong):
    with pytest.raises(UnnameableError):
        place(**wrong)
