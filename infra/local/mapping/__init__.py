"""A local stand-in for Lambda's event source mapping on a DynamoDB stream, faithful to what AWS documents."""
