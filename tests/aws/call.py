"""One call of an AWS API: `call.py SERVICE OPERATION`, parameters as JSON on stdin, the answer as JSON on stdout.

Runs inside the local cloud, as whoever changes things behind the tools' back.
"""

import json
import sys

import boto3

service, operation = sys.argv[1:]
answer = getattr(boto3.client(service), operation)(**json.load(sys.stdin))
json.dump(answer, sys.stdout, default=str)
