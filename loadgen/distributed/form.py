"""The fields of Locust's start form that are Bakeoff's, each in one place, as options of Locust's."""

from __future__ import annotations

from typing import Literal

from locust.argument_parser import LocustArgumentParser
from pydantic import BaseModel, ConfigDict, Field

from loadgen.distributed.messages import PLAN_OPTION
from loadgen.endpoints.seats import read_seats
from loadgen.scenario.shapes import MOST


class OwnFields(BaseModel):
    """The fields that Bakeoff adds, in the order in which the form shows them, each as its name and its description.

    On a phone about 40 characters of both can be seen.
    """

    model_config = ConfigDict(extra="ignore")

    engine: str = Field(default="none", description="under test")
    prompt_tokens: int = Field(default=64, ge=1, le=MOST, description="of each request")
    output_tokens: int = Field(default=32, ge=1, le=MOST, description="of each request")
    requests: int = Field(default=50, ge=0, le=MOST, description="to measure; 0: until stopped")
    warmup_requests: int = Field(default=1, ge=0, le=MOST, description="of each user; with a rate, of all; or batches")
    shared_prefix_tokens: int = Field(default=0, ge=0, le=MOST, description="of all requests")
    rate: float = Field(
        default=0.0, ge=0, le=100_000, allow_inf_nan=False, description="requests a second, not by users; 0: by users"
    )
    batch: int = Field(default=0, ge=0, le=10_000, description="requests at once, not by users; 0: by users")
    arrival: Literal["poisson", "constant"] = Field(default="poisson", description="with a rate")
    short_output: Literal["error", "allowed"] = Field(default="error", description="an answer that ends early")
    seed: str = Field(default="", max_length=200, description="empty: new prompts each time")
    endpoint: str = Field(default="", max_length=4000, description="model=, api=, header=, as in --engine")


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add the fields to Locust's form and command line, and the option that only the master sets."""
    seats = [seat.name for seat in read_seats()] or ["none"]
    choices = {"engine": seats, "arrival": ["poisson", "constant"], "short_output": ["error", "allowed"]}
    for name, field in OwnFields.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(field.default),
            choices=choices.get(name),
            default=seats[0] if name == "engine" else field.default,
            help=field.description,
            include_in_web_ui=True,
        )
    parser.add_argument(f"--{PLAN_OPTION}", type=str, default="", help="Set by the master", include_in_web_ui=False)
