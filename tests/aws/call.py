"""Calls of AWS APIs, one a line of stdin, as whoever changes things behind the tools' back inside the local cloud.

A line in is `[SERVICE, OPERATION, PARAMETERS]`, the line out `{"answer": …}` or `{"error": …}`.
"""

import json
import sys
from functools import cache

import boto3
from botocore.exceptions import BotoCoreError, ClientError

client = cache(boto3.client)
for line in sys.stdin:
    service, operation, parameters = json.loads(line)
    try:
        said = {"answer": getattr(client(service), operation)(**parameters)}
    except (BotoCoreError, ClientError) as error:
        said = {"error": str(error)}
    print(json.dumps(said, default=str), flush=True)
