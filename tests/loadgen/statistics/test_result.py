"""The schema of the result: committed as it is, and held by what `compare` gives."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import CellSample
from loadgen.statistics.result import Settings, Statistics, schema_text
from tests.loadgen.statistics.samples import block, cell

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "statistics.schema.json"


def statistics():
    rng = np.random.default_rng(1)
    cells = [cell(*rng.lognormal(2, 0.3, (2, repeats, 40)), id=f"p{repeats}") for repeats in (1, 2, 4)]
    cells += [CellSample("bad", [block(1, [1.0], invalid="it failed")], []), CellSample("odd", [block(1, [0.0])], [])]
    cells += [CellSample("far", [block(i, [1e-300]) for i in (1, 2)], [block(i, [1e300]) for i in (1, 2)])]
    return compare("left", "right", cells, Settings(floors_ms={"ttft_ms": 0.2}))


def test_the_committed_schema_is_current():
    assert SCHEMA.read_text() == schema_text(), "run: python -m loadgen.statistics.result > docs/statistics.schema.json"


def test_results_keep_to_the_schema():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    data = json.loads(statistics().model_dump_json())
    validator.validate(data)
    data["cells"][0]["verdict"] = "perhaps"
    assert not validator.is_valid(data)


def test_a_result_can_be_read_back():
    found = statistics()
    assert Statistics.model_validate_json(found.model_dump_json()) == found
    assert json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))["schema_version"] == 1


def test_every_reason_has_words():
    from loadgen.statistics.result import Reason
    from loadgen.statistics.words import WHY

    assert set(Reason.__args__) == set(WHY)


@pytest.mark.parametrize("wrong", [{"margin": -0.01}, {"alpha": 0.0}, {"floor": 1}])
def test_settings_are_strict(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)
