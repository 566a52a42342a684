"""The bridge: changes of a DynamoDB table to envelopes in Kinesis. In Lambda it begins with this file."""

import gc
import os

if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    gc.disable()  # while the environment starts: a fifth of it. The handler says how it goes on.
