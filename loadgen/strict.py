"""The base of everything that is read from a user's file: unknown keys and values of another type are refused."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen model without coercion, since `requests: true` and `requests: "12"` are slips, not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
