"""The raw archive as a live source: objects of gzip NDJSON as they land, for Spark Structured Streaming."""
