"""The job that arrivals start, and when the first of them landed."""

JOB = 7
LANDED_MS = 1_700_000_000_000
