"""The independent consumer: what the bridge sent, seen by the Kinesis Client Library, apart from Spark.

`processor` runs once for each shard, as a child of the library's daemon, and tells `hub` what it sees; `judge` and
`balance` decide what that means; `command` is `lakestream probe`.
"""
