"""IAM users with one policy each: {"NAME": DOCUMENT or ARN, …} on stdin, {"NAME": {"AWS_ACCESS_KEY_ID": …}, …} on stdout.

Runs inside the local cloud, as whoever hands out keys.
"""

import json
import sys

import boto3

iam = boto3.client("iam")


def user(name, policy):
    iam.create_user(UserName=name)
    if isinstance(policy, dict):
        policy = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(policy))["Policy"]["Arn"]
    iam.attach_user_policy(UserName=name, PolicyArn=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


json.dump({name: user(name, policy) for name, policy in json.load(sys.stdin).items()}, sys.stdout)
