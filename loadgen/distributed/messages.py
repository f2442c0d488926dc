"""What a Locust worker tells the master beside Locust's own messages: the names of the messages and their data."""

RECORDS_MESSAGE = "bakeoff_records"
"""`records`: request records as plain data."""
PULSE_MESSAGE = "bakeoff_pulse"
"""How the worker fares: `worker`, `in_flight`, `events`, `cpu_seconds`, `run_id`, `block`, `probe`, `process`."""
BLOCK_END_MESSAGE = "bakeoff_block_end"
"""The worker has stopped: `worker`, `block`, and how many `records` it sent."""
