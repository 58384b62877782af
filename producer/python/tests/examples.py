"""The number of examples of a property, which `RUNS` sets. Without it, they are the same in each run."""

import os

from hypothesis import HealthCheck, settings


def examples(runs):
    return settings(
        max_examples=int(os.environ.get("RUNS", runs)),
        deadline=None,
        derandomize="RUNS" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
