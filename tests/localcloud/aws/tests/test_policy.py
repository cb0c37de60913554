"""The policy evaluator, by table."""

import unittest

from policy import Decision, Question, evaluate, like

ALLOW, IMPLICIT, EXPLICIT = Decision.ALLOW, Decision.IMPLICIT_DENY, Decision.EXPLICIT_DENY


def policy(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action="*", resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action="*", resource="*", **more):
    return allow(action, resource, **more) | {"Effect": "Deny"}


def when(operator, key, value):
    return {"Condition": {operator: {key: value}}}


ROLE = "arn:aws:iam::1:role/a"

CASES = [
    ("nothing allows", [], "iam:GetRole", "*", {}, IMPLICIT),
    ("everything", [policy(allow())], "iam:GetRole", ROLE, {}, ALLOW),
    ("actions fold case", [policy(allow("IAM:getrole"))], "iam:GetRole", "*", {}, ALLOW),
    ("a service", [policy(allow("servicediscovery:*"))], "servicediscovery:ListNamespaces", "*", {}, ALLOW),
    ("another service", [policy(allow("servicediscovery:*"))], "iam:GetRole", "*", {}, IMPLICIT),
    ("deny wins", [policy(allow()), policy(deny("iam:*"))], "iam:GetRole", "*", {}, EXPLICIT),
    (
        "NotAction",
        [policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})],
        "iam:GetRole",
        "*",
        {},
        IMPLICIT,
    ),
    (
        "NotAction of others",
        [policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})],
        "eks:ListClusters",
        "*",
        {},
        ALLOW,
    ),
    ("a resource", [policy(allow("iam:*", ROLE))], "iam:GetRole", ROLE, {}, ALLOW),
    ("another resource", [policy(allow("iam:*", ROLE))], "iam:GetRole", ROLE + "b", {}, IMPLICIT),
    ("resources keep case", [policy(allow("iam:*", ROLE))], "iam:GetRole", ROLE.upper(), {}, IMPLICIT),
    ("a list call needs a star", [policy(allow("iam:*", ROLE))], "iam:ListRoles", "*", {}, IMPLICIT),
    (
        "NotResource",
        [policy({"Effect": "Deny", "Action": "*", "NotResource": ROLE}), policy(allow())],
        "iam:GetRole",
        ROLE,
        {},
        ALLOW,
    ),
    (
        "a condition holds",
        [policy(allow(**when("StringEquals", "aws:RequestedRegion", ["us-west-2"])))],
        "a:B",
        "*",
        {"aws:requestedregion": ["us-west-2"]},
        ALLOW,
    ),
    (
        "a condition fails",
        [policy(allow(**when("StringEquals", "aws:RequestedRegion", "us-east-1")))],
        "a:B",
        "*",
        {"aws:requestedregion": ["us-west-2"]},
        IMPLICIT,
    ),
    ("a missing key", [policy(allow(**when("StringLike", "x:Y", "*")))], "a:B", "*", {}, IMPLICIT),
    ("IfExists", [policy(allow(**when("StringLikeIfExists", "x:Y", "z")))], "a:B", "*", {}, ALLOW),
    ("a negated missing key", [policy(allow(**when("StringNotEquals", "x:Y", "z")))], "a:B", "*", {}, ALLOW),
    ("Null", [policy(allow(**when("Null", "x:Y", "true")))], "a:B", "*", {}, ALLOW),
    (
        "an unknown operator does not allow",
        [policy(allow(**when("IpAddress", "aws:SourceIp", "10.0.0.0/8")))],
        "a:B",
        "*",
        {"aws:sourceip": ["10.1.1.1"]},
        IMPLICIT,
    ),
    (
        "an unknown operator denies",
        [policy(allow()), policy(deny(**when("IpAddress", "aws:SourceIp", "10.0.0.0/8")))],
        "a:B",
        "*",
        {"aws:sourceip": ["10.1.1.1"]},
        EXPLICIT,
    ),
    (
        "JSON text",
        ['{"Statement": {"Effect": "Allow", "Action": ["eks:*"], "Resource": ["*"]}}'],
        "eks:ListClusters",
        "*",
        {},
        ALLOW,
    ),
]


class Policy(unittest.TestCase):
    def test_decisions(self):
        for name, documents, action, resource, context, expected in CASES:
            with self.subTest(name):
                self.assertIs(evaluate(documents, Question(action, resource, context)), expected)

    def test_only_star_and_question_mark_are_wild(self):
        self.assertTrue(like("arn:*:role/a?c", "arn:aws:iam::1:role/abc"))
        self.assertFalse(like("a.c", "abc"))
        self.assertFalse(like("[ab]", "a"))
