"""ECR: repositories, and a registry that asks for a token."""

import base64
import hashlib
import json
import time
import urllib.error
import urllib.request

from gate import ACCOUNT, REGION, Case
from region import ACCOUNT as OWNER

REGISTRY = f"http://{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


def digest(raw):
    return "sha256:" + hashlib.sha256(raw).hexdigest()


class Ecr(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.region.start_ministack()
        cls.operator = cls.region.client("ecr")
        cls.node = cls.region.client("ecr", cls.region.account["node"])

    def repository(self):
        name = f"k8multi/{self._testMethodName}"[:200].lower()
        made = self.operator.create_repository(repositoryName=name)["repository"]
        self.addCleanup(self.operator.delete_repository, repositoryName=name, force=True)
        self.assertEqual(made["repositoryUri"], f"{OWNER}.dkr.ecr.{REGION}.amazonaws.com/{name}")
        return name

    def ask(self, method, path, api=None, body=None, kind=None, password=None):
        """Status, headers and body of a registry request."""
        headers = {"Content-Type": kind or "application/octet-stream"}
        if api is not None:
            password = (
                base64.b64decode(api.get_authorization_token()["authorizationData"][0]["authorizationToken"])
                .decode()
                .partition(":")[2]
            )
        if password is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"AWS:{password}".encode()).decode()
        request = urllib.request.Request(REGISTRY + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def push(self, name, tag="latest", api=None):
        api = api or self.operator
        layer, config = b"layer " + tag.encode(), b"{}"
        for blob in (layer, config):
            status, headers, body = self.ask("POST", f"/v2/{name}/blobs/uploads/", api, b"")
            if status != 202:
                return status, body
            location = headers["Location"].removeprefix(REGISTRY)
            self.ask("PATCH", location, api, blob)
            status, _, body = self.ask(
                "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest(blob)}", api, b""
            )
            self.assertEqual(status, 201, body)
        kind = "application/vnd.oci.image.manifest.v1+json"
        part = lambda raw, t: {"mediaType": t, "digest": digest(raw), "size": len(raw)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": part(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [part(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
        raw = json.dumps(manifest).encode()
        status, _, body = self.ask("PUT", f"/v2/{name}/manifests/{tag}", api, raw, kind)
        return status, raw if status == 201 else body

    def test_what_is_pushed_is_listed_and_pulled(self):
        name = self.repository()
        status, manifest = self.push(name)
        self.assertEqual(status, 201)
        image = self.operator.describe_images(repositoryName=name, imageIds=[{"imageTag": "latest"}])["imageDetails"][0]
        self.assertEqual(
            (image["imageDigest"], image["imageTags"], image["imageSizeInBytes"]),
            (digest(manifest), ["latest"], len(b"layer latest") + 2),
        )
        got = self.operator.batch_get_image(
            repositoryName=name, imageIds=[{"imageTag": "latest"}, {"imageTag": "none"}]
        )
        self.assertEqual((len(got["images"]), got["failures"][0]["failureCode"]), (1, "ImageNotFound"))
        status, _, body = self.ask("GET", f"/v2/{name}/manifests/latest", self.node)
        self.assertEqual((status, body), (200, manifest))
        self.assertEqual(
            self.refused(self.operator.delete_repository, repositoryName=name)[1], "RepositoryNotEmptyException"
        )
        self.assertEqual(
            self.refused(self.operator.describe_images, repositoryName=name, imageIds=[{"imageTag": "none"}])[1],
            "ImageNotFoundException",
        )

    def test_a_registry_asks_for_a_token(self):
        status, headers, _ = self.ask("GET", "/v2/")
        self.assertEqual(status, 401)
        self.assertTrue(headers["WWW-Authenticate"].startswith("Basic realm="))
        self.assertEqual(self.ask("GET", "/v2/", password="guess")[0], 401)
        self.assertEqual(self.ask("GET", "/v2/", self.node)[0], 200)

    def test_a_token_says_when_it_ends(self):
        grant = self.operator.get_authorization_token()["authorizationData"][0]
        self.assertAlmostEqual(grant["expiresAt"].timestamp(), time.time() + 12 * 3600, delta=60)
        self.assertEqual(grant["proxyEndpoint"], f"https://{OWNER}.dkr.ecr.{REGION}.amazonaws.com")

    def test_nodes_pull_and_never_push(self):
        name = self.repository()
        status, body = self.push(name, api=self.node)
        self.assertEqual(status, 403)
        self.assertIn(
            "not authorized to perform: ecr:InitiateLayerUpload on resource: arn:aws:ecr:us-west-2:123456789012:repository/"
            + name,
            json.loads(body)["errors"][0]["message"],
        )
        self.assertEqual(
            self.refused(self.node.create_repository, repositoryName="k8multi/nodes")[1], "AccessDeniedException"
        )

    def test_repositories_are_there_or_not(self):
        name = self.repository()
        refused = self.refused(self.operator.create_repository, repositoryName=name)
        self.assertEqual(
            refused[1:],
            (
                "RepositoryAlreadyExistsException",
                f"The repository with name '{name}' already exists in the registry with id '{OWNER}'",
            ),
        )
        refused = self.refused(self.operator.describe_repositories, repositoryNames=["k8multi/none"])
        self.assertEqual(
            refused[1:],
            (
                "RepositoryNotFoundException",
                f"The repository with name 'k8multi/none' does not exist in the registry with id '{OWNER}'",
            ),
        )
        self.assertEqual(
            self.refused(self.operator.create_repository, repositoryName="Upper")[1], "InvalidParameterException"
        )
        self.assertEqual(self.push("k8multi/none")[0], 404)

    def test_a_tag_goes_alone_and_the_last_with_its_image(self):
        name = self.repository()
        _, manifest = self.push(name, "one")
        self.operator.put_image(repositoryName=name, imageManifest=manifest.decode(), imageTag="two")
        self.operator.put_image_tag_mutability(repositoryName=name, imageTagMutability="IMMUTABLE")
        delete = lambda image: self.operator.batch_delete_image(repositoryName=name, imageIds=[image])
        tags = lambda: [i["imageTags"] for i in self.operator.describe_images(repositoryName=name)["imageDetails"]]
        self.assertEqual(
            delete({"imageTag": "one"})["imageIds"], [{"imageDigest": digest(manifest), "imageTag": "one"}]
        )
        self.assertEqual(tags(), [["two"]])
        mutability = self.operator.describe_repositories(repositoryNames=[name])["repositories"][0][
            "imageTagMutability"
        ]
        self.assertEqual(mutability, "IMMUTABLE")
        self.assertEqual(delete({"imageTag": "one"})["failures"][0]["failureCode"], "ImageNotFound")
        self.assertEqual(self.ask("GET", f"/v2/{name}/manifests/{digest(manifest)}", self.node)[0], 200)
        delete({"imageTag": "two"})
        self.assertEqual(tags(), [])
        self.assertEqual(self.ask("GET", f"/v2/{name}/manifests/{digest(manifest)}", self.node)[0], 404)

    def test_nothing_of_a_deleted_repository_comes_back(self):
        name = self.repository()
        _, manifest = self.push(name)
        layer = json.loads(manifest)["layers"][0]["digest"]
        self.assertEqual(self.ask("HEAD", f"/v2/{name}/blobs/{layer}", self.operator)[0], 200)
        self.operator.delete_repository(repositoryName=name, force=True)
        self.operator.create_repository(repositoryName=name)
        for what in (f"manifests/{digest(manifest)}", f"blobs/{layer}"):
            self.assertEqual(self.ask("HEAD", f"/v2/{name}/{what}", self.operator)[0], 404, what)

    def test_lists_have_pages_and_tags_stay(self):
        names = sorted(f"k8multi/page{n}" for n in range(5))
        for name in names:
            made = self.operator.create_repository(repositoryName=name, tags=[{"Key": "managed-by", "Value": "x"}])[
                "repository"
            ]
            self.addCleanup(self.operator.delete_repository, repositoryName=name, force=True)
        self.assertEqual(
            self.operator.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"],
            [{"Key": "managed-by", "Value": "x"}],
        )
        pages = list(self.operator.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2}))
        self.assertGreaterEqual(len(pages), 3)
        self.assertLessEqual(set(names), {r["repositoryName"] for p in pages for r in p["repositories"]})
