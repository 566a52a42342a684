import gc
import os

if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    gc.disable()  # while the environment starts: a fifth of it. The handler says how it goes on.
