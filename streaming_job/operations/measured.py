"""What a change of telemetry costs a processor, measured: the one home of the figures that forecasts are reckoned from.

An item of some 20 signals, on the machine that ARCHITECTURE's figures come from; an updated benchmark is put in here.
"""

from typing import Final

ITEM_BYTES: Final = 4_400
"""Of such an item as plain JSON; DynamoDB counts about the same."""

BRIDGE_CORE_MS: Final = 0.45
"""A whole invocation's, for each change: `bench_bridge`, invocations_bridge_in_lambda_records_s."""
INVOCATION_MS: Final = 20.0
"""What an invocation takes besides: PutRecords' answer, most of it."""

JOB_CORE_MS: Final = 0.32
"""Of all of the job's threads and processes, for each change: of `bench_drain`, between ready and done; with
our own source and engine `rust`, and taken to be no other with `spark`, where rows do go through its tasks.
"""
JOB_SERIAL_MS: Final = 0.11
"""Of that, what one process does: decode, 0.03, and its part of flattening, 0.12 in all, of which it has 0.62 where one
more does the rest, as on 2 cores. More processes would leave it less, which nobody measured.
"""
BATCH_MS: Final = {"rust": 200.0, "spark": 2_000.0}
"""What a batch takes however few its changes are, by engine: `bench_batch` without what its rows cost; for `spark` a
warm MERGE's 1.0 to 1.5 s, with history's beside it.
"""
BATCH_SPREAD: Final = 0.34
"""Of a batch's duration, as the sigma of its logarithm: the 95th percentile is 1.75 times the median."""
