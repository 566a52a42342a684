"""A local stand-in for a Firehose delivery stream from Kinesis to S3."""
