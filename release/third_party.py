"""Writes THIRD-PARTY-LICENSES: what is linked into the programs of a release, each with the text of its licence.

    cargo about generate --format json ... > about.json
    python3 release/third_party.py about.json > THIRD-PARTY-LICENSES

cargo-about knows the crates and looks for the texts of their licences. This adds what it does not look for: notices,
what crates bundle of others, Rust's standard library and the C library. It fails where a text is missing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from textwrap import fill
from typing import Any

# The texts that a crate's authors did not put into its package, by its name.
SUPPLIED = Path(__file__).resolve().parent / "licenses"
# A licence whose text is the same for everybody. That of others names who holds the copyright.
UNIVERSAL = {"Apache-2.0"}
LEGAL = re.compile(r"(un)?licen[sc]e|copying|copyright|notice", re.IGNORECASE)
TEXT = {"", ".txt", ".md"}

# Where Debian and Ubuntu have what they say of the C library that programs are linked with.
LIBC = Path("/usr/share/doc/libc6-dev/copyright")
LGPL = Path("/usr/share/common-licenses/LGPL-2.1")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Texts:
    """Texts by number; those that differ in white space only are one."""

    numbers: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    of: list[list[str]] = field(default_factory=list)

    def add(self, text: str, whose: str) -> int:
        lines = [line.rstrip() for line in text.replace("\r", "").replace("\f", "").strip("\n").splitlines()]
        number = self.numbers.setdefault(" ".join(text.split()), len(self.texts) + 1)
        if number > len(self.texts):
            self.texts.append("\n".join(lines))
            self.of.append([])
        if whose not in self.of[number - 1]:
            self.of[number - 1].append(whose)
        return number


def folder(crate: dict[str, Any]) -> Path:
    return Path(crate["manifest_path"]).parent


def name(crate: dict[str, Any]) -> str:
    return f"{crate['name']} {crate['version']}"


def legal(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in TEXT and LEGAL.match(path.name) is not None


def substitutes(crate: dict[str, Any], licence: str, canonical: str, found: list[dict[str, Any]]) -> list[str]:
    """The texts in place of a licence that no file of the crate was found to be."""
    # A file that holds several texts is not recognised as one.
    own = [path for path in sorted(folder(crate).iterdir()) if legal(path)]
    if own:
        return [path.read_text(encoding="utf-8") for path in own]
    supplied = SUPPLIED / crate["name"]
    if supplied.is_file():
        return [supplied.read_text(encoding="utf-8")]
    # Of several crates of one repository, some were published without the file.
    for entry in found:
        for user in entry["used_by"]:
            same = crate["repository"] and user["crate"]["repository"] == crate["repository"]
            if entry["id"] == licence and entry["source_path"] and same:
                return [entry["text"]]
    return [canonical] if licence in UNIVERSAL else []


def crates(about: dict[str, Any], texts: Texts) -> tuple[list[str], list[str]]:
    """A line for each crate, and what is missing."""
    found = sorted(about["licenses"], key=lambda entry: (entry["id"], entry["text"]))
    numbers: dict[str, set[int]] = {name(entry["package"]): set() for entry in about["crates"]}
    missing = []
    for entry in found:
        for user in sorted(entry["used_by"], key=lambda user: name(user["crate"])):
            crate = user["crate"]
            if entry["source_path"]:
                numbers[name(crate)].add(texts.add(entry["text"], name(crate)))
                continue
            instead = substitutes(crate, entry["id"], entry["text"], found)
            if not instead:
                missing.append(f"{name(crate)} has no text of {entry['id']}: put it into {SUPPLIED / crate['name']}")
            for text in instead:
                numbers[name(crate)].add(texts.add(text, name(crate)))
    lines = []
    for crate in sorted((entry["package"] for entry in about["crates"]), key=name):
        # Notices, and what the crate bundles of others.
        for path in sorted(folder(crate).rglob("*")):
            if legal(path) and (path.parent != folder(crate) or path.name.lower().startswith("notice")):
                text = path.read_text(encoding="utf-8", errors="replace")
                numbers[name(crate)].add(texts.add(text, f"{name(crate)} ({path.relative_to(folder(crate))})"))
        if not numbers[name(crate)] and not missing:
            missing.append(f"{name(crate)} has no licence text at all")
        shown = ", ".join(str(number) for number in sorted(numbers[name(crate)]))
        lines.append(f"{name(crate):40} {crate['license']}\n{'':40} texts {shown}")
    return lines, missing


class Page(HTMLParser):
    """The text of a page, with its <pre> as numbers of texts."""

    def __init__(self, texts: Texts, whose: str) -> None:
        super().__init__()
        self.texts, self.whose = texts, whose
        self.parts: list[str] = []
        self.skipped = 0
        self.pre: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in {"head", "ul"}:
            self.skipped += 1
        elif tag == "pre":
            self.pre = []
        elif tag in {"p", "h1", "h2", "h3", "div", "summary"}:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"head", "ul"}:
            self.skipped -= 1
        elif tag == "pre" and self.pre is not None:
            self.parts.append(f" text {self.texts.add(''.join(self.pre), self.whose)}")
            self.pre = None

    def handle_data(self, data: str) -> None:
        if self.pre is not None:
            self.pre.append(data)
        elif not self.skipped:
            self.parts.append(data)

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self.parts).splitlines())
        return "\n".join(line for line in lines if line)


def standard_library(texts: Texts) -> str:
    docs = Path(output("rustc", "--print", "sysroot").strip()) / "share/doc/rust"
    page = Page(texts, "Rust's standard library")
    page.feed((docs / "COPYRIGHT-library.html").read_text(encoding="utf-8"))
    for file in ["Apache-2.0.txt", "LLVM-exception.txt", "MIT.txt", "Unicode-3.0.txt"]:
        texts.add((docs / "licenses" / file).read_text(encoding="utf-8"), "Rust's standard library")
    return page.text().replace("Table of Contents\n", "")


def c_library(texts: Texts) -> str:
    for file in [LIBC, LGPL]:
        if not file.is_file():
            sys.exit(f"there is no {file}, which has the terms of the C library: pack a release on Debian or Ubuntu")
    package = ["--showformat", "${source:Package} ${source:Version}", "libc6-dev"]
    source = output("dpkg-query", "--show", *package)
    numbers = [texts.add(file.read_text(encoding="utf-8"), "the GNU C Library") for file in [LIBC, LGPL]]
    return (
        f"The programs are linked statically with the GNU C Library, which is under the GNU Lesser General Public\n"
        f"License 2.1 or later. It is that of the package {source}, whose source the distribution has.\n"
        f"Who wants to link the programs with another one can: their source is public, and `make dist` builds it.\n"
        f"texts {numbers[0]}, {numbers[1]}\n\n"
        f"Of GCC they have start files and libgcc, under the GCC Runtime Library Exception 3.1, which asks for nothing."
    )


def main(about: str) -> None:
    texts = Texts()
    lines, missing = crates(json.loads(Path(about).read_text(encoding="utf-8")), texts)
    if missing:
        sys.exit("\n".join(missing))
    library, linked = standard_library(texts), c_library(texts)
    rule = "=" * 80
    print("THIRD-PARTY LICENCES\n")
    print("crossmesh is under the Apache License 2.0, see LICENSE. Its programs also hold what is listed here: crates,")
    print("each with its licence and the numbers of the texts below; Rust's standard library; the C library.")
    print(f"\n{rule}\nCrates\n{rule}\n")
    print("\n".join(lines))
    print(f"\n{rule}\nRust's standard library\n{rule}\n\n{library}")
    print(f"\n{rule}\nThe C library\n{rule}\n\n{linked}")
    for number, (text, of) in enumerate(zip(texts.texts, texts.of), 1):
        heading = fill(f"Text {number}, of {', '.join(of)}", 120, break_long_words=False, break_on_hyphens=False)
        print(f"\n{rule}\n{heading}\n{rule}\n\n{text}")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main(*sys.argv[1:])
