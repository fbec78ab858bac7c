"""Runs a handler as Lambda's Python runtime does.

bootstrap.py MODULE.FUNCTION
"""

import importlib
import json
import os
import sys
import urllib.request

invocations = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
module, function = sys.argv[1].split(".")
handler = getattr(importlib.import_module(module), function)

while True:
    with urllib.request.urlopen(f"{invocations}/next") as response:
        request_id, event = response.headers["Lambda-Runtime-Aws-Request-Id"], json.load(response)
    try:
        kind, result = "response", handler(event, None)
    except Exception as error:
        kind, result = "error", {"errorType": type(error).__name__, "errorMessage": str(error)}
    urllib.request.urlopen(
        urllib.request.Request(
            f"{invocations}/{request_id}/{kind}",
            json.dumps(result).encode(),
            {"Content-Type": "application/json"},
        )
    ).close()
