"""Checks the release that `make dist` packed: built in another folder it is the same, and it says truly what is in it.

    python3 release/check.py build/dist "TARGET..." PROGRAM...
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

HERE = Path.cwd()
CARGO = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
Crates = set[str]


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read(archive: Path) -> dict[str, bytes]:
    """The files of a release, by their path below its top folder."""
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar if member.isfile()}
        return {path: file.read() for path, file in files.items() if file}


def build_elsewhere(folder: Path, targets: list[str]) -> Path:
    """Packs the same commit in a clone, with another home of cargo. Shared are downloads and cargo's tools."""
    clone, cargo = folder / "elsewhere/clone", folder / "cargo"
    subprocess.run(["git", "clone", "--quiet", HERE, clone], check=True)
    cargo.mkdir()
    (cargo / "registry").symlink_to(CARGO / "registry")
    (clone / "target").mkdir()
    (clone / "target/dist-tools").symlink_to(HERE / "target/dist-tools")
    environment = {**os.environ, "CARGO_HOME": str(cargo)}
    subprocess.run(["make", "-C", clone, "BUILD=build", f"TARGETS={' '.join(targets)}", "dist"], check=True, env=environment)
    return clone / "build/dist"


def compare(one: Path, two: Path) -> list[str]:
    sums = [(dist / "SHA256SUMS").read_text() for dist in (one, two)]
    print(sums[0], end="")
    if sums[0] == sums[1]:
        return []
    wrong = [f"built elsewhere, the digests are others:\n{sums[1]}"]
    for archive in sorted(one.glob("*.tar.gz")):
        files = [read(dist / archive.name) for dist in (one, two)]
        differ = sorted(path for path in files[0] | files[1] if files[0].get(path) != files[1].get(path))
        wrong += [f"{archive.name}: {path} differs" for path in differ]
    return wrong


def tree(target: str, programs: list[str]) -> Crates:
    """The crates of others that cargo links into these programs."""
    options = ["--locked", "--target", target, "--edges", "normal", "--prefix", "none"]
    lines = output("cargo", "tree", *options, *(f"--package={program}" for program in programs)).splitlines()
    found = [line.replace("(*)", "").replace("(proc-macro)", "").split() for line in lines if line]
    return {f"{words[0]} {words[1].removeprefix('v')}" for words in found if len(words) == 2}


def section(program: bytes, wanted: str) -> bytes | None:
    """A section of an ELF file of 64 bits."""
    (at,) = struct.unpack_from("<Q", program, 0x28)
    size, count, names = struct.unpack_from("<HHH", program, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", program, at + number * size) for number in range(count)]
    for header in headers:
        start = headers[names][4] + header[0]
        if program[start : program.index(b"\0", start)] == wanted.encode():
            return program[header[4] : header[4] + header[5]]
    return None


def named(packages: list[dict[str, Any]]) -> Crates:
    return {f"{package['name']} {package['version']}" for package in packages}


def look(name: str, files: dict[str, bytes], linked: Crates) -> list[str]:
    """What is wrong with a program, the list of dependencies in it, and its bill of materials."""
    program, wrong = files[f"bin/{name}"], []
    for path in [HERE, CARGO, Path(output("rustc", "--print", "sysroot").strip())]:
        if str(path).encode() in program:
            wrong.append(f"bin/{name} names the folder {path}")
    packed = section(program, ".dep-v0")
    if packed is None:
        return [*wrong, f"bin/{name} has no list of its dependencies"]
    packages = json.loads(zlib.decompress(packed))["packages"]
    roots = [package["name"] for package in packages if package.get("root")]
    if roots != [name]:
        wrong.append(f"the list of dependencies in bin/{name} is of {roots}")
    bill = json.loads(files[f"sbom/{name}.cdx.json"])
    described = bill["metadata"]["component"]
    if (described["name"], described["type"]) != (name, "application") or "serialNumber" in bill:
        wrong.append(f"sbom/{name}.cdx.json describes {described['type']} {described['name']}, or has a serial number")
    if str(HERE).encode() in files[f"sbom/{name}.cdx.json"]:
        wrong.append(f"sbom/{name}.cdx.json names the folder {HERE}")
    # The program also lists what features of the tests, which are not in it, would bring.
    inside, outside = named(packages), named([described, *bill["components"]])
    wrong += [f"bin/{name} does not list {crate}" for crate in sorted(outside - inside)]
    wrong += [f"sbom/{name}.cdx.json does not list {crate}" for crate in sorted(linked - outside)]
    crates = f"{len(inside):>4} crates listed, {len(outside):>4} in the bill, {len(linked):>4} of others linked"
    print(f"{name:20} {len(program):>11,} bytes, {crates}")
    return wrong


def look_into(archive: Path, target: str, programs: list[str]) -> list[str]:
    """What is wrong in the archive of one target."""
    print(archive.name)
    files, wrong = read(archive), []
    for name in programs:
        wrong += look(name, files, tree(target, [name]))
    licences, linked = files["THIRD-PARTY-LICENSES"].decode(), tree(target, programs)
    listed = {" ".join(line.split()[:2]) for line in licences.splitlines()}
    wrong += [f"THIRD-PARTY-LICENSES does not list {crate}" for crate in sorted(linked - listed)]
    print(f"{len(linked)} crates linked, {len(licences):,} characters of licences")
    return [f"{archive.name}: {what}" for what in wrong]


def main(dist: Path, targets: list[str], programs: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="crossmesh-") as folder:
        wrong = compare(dist, build_elsewhere(Path(folder), targets))
    for target in targets:
        (archive,) = dist.glob(f"crossmesh-*-{target}.tar.gz")
        wrong += look_into(archive, target, programs)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3:])
