"""Measures how long an image takes to a registry, and how much memory, beside skopeo.

    python3 bench/push.py [--rounds 5] [--bin target/…/release]

Both push the same docker archive to repositories of their own in one local cloud, by turns: one layer of 10, 100 and 400 MB,
which holds programs and is not compressed, another each time. Leaves `bench/results/push.json`. Gets skopeo itself (Debian).
"""

from __future__ import annotations

import datetime
import hashlib
import io
import itertools
import json
import os
import tarfile
import tempfile
from pathlib import Path

from flow import ROOT, Cloud, aws_cli, debian, options, release, tell

SIZES = (10, 100, 400)


def archive(folder: Path, program: Path, megabytes: int, number: int) -> Path:
    """An image of one layer, as `docker save` writes it. No compressor looks back as far as the program is long. With another
    number it is another: both know a layer again that they have sent."""
    content, layer, image = (folder / f"{megabytes}.{end}" for end in ("content", "layer", "tar"))
    with content.open("wb") as file:
        left = megabytes * 10**6 - file.write(number.to_bytes(8))
        while left:
            left -= file.write(program.read_bytes()[:left])
    with tarfile.open(layer, "w") as tar:
        tar.add(content, "program")
    with layer.open("rb") as file:
        difference = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [difference]}}
    manifest = [{"Config": "config.json", "RepoTags": ["bench:latest"], "Layers": ["layer.tar"]}]
    with tarfile.open(image, "w") as tar:
        tar.add(layer, "layer.tar")
        for name, part in (("config.json", config), ("manifest.json", manifest)):
            text = json.dumps(part).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    content.unlink()
    layer.unlink()
    return image


def measured(cloud: Cloud, work: Path, *command: object) -> dict[str, float]:
    """Seconds that a command takes, and megabytes at most."""
    found = cloud.run("time", "--format", "%M", "--output", work / "memory", *command)
    return found | {"memory_mb": round(int((work / "memory").read_text()) * 1.024e-3, 1)}


def main() -> None:
    args = options(__doc__).parse_args()
    binaries = release(args.bin)
    debian("skopeo")
    debian("time")
    aws = aws_cli() / "aws"
    sizes: dict[int, dict[str, list[dict[str, float]]]] = {size: {"crossmesh": [], "skopeo": []} for size in SIZES}
    with tempfile.TemporaryDirectory() as folder, Cloud(binaries, ROOT / "build" / "bench") as cloud:
        work = Path(folder)
        # skopeo makes no repositories, so that none is made while it counts.
        for size, number, who in itertools.product(SIZES, range(args.rounds), ("crossmesh", "skopeo")):
            made = cloud.output(aws, "ecr", "create-repository", "--repository-name", f"{who}/{size}-{number}")
        registry = json.loads(made)["repository"]["repositoryUri"].split("/")[0]
        login = ["skopeo", "login", "--authfile", work / "auth.json", "--username", "AWS", "--password-stdin", registry]
        cloud.output(*login, given=cloud.output(aws, "ecr", "get-login-password"))
        for number in range(args.rounds):
            tell(f"round {number + 1} of {args.rounds}")
            for size in SIZES:
                source = archive(work, binaries / "appmesh-controller", size, number)
                push = [binaries / "ecr-push", "bench", "-n", "--use", "--repository", f"crossmesh/{size}-{number}", "--archive", source]
                sizes[size]["crossmesh"].append(measured(cloud, work, *push))
                copy = ["skopeo", "copy", "--quiet", "--authfile", work / "auth.json", f"docker-archive:{source}"]
                sizes[size]["skopeo"].append(measured(cloud, work, *copy, f"docker://{registry}/skopeo/{size}-{number}:bench"))
    result = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), "rounds": args.rounds, "sizes": sizes}
    (ROOT / "bench" / "results" / "push.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
