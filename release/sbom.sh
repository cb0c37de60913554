#!/usr/bin/env bash
# Writes a software bill of materials for each program, PROGRAM.cdx.json of CycloneDX, the same for the same commit.
#
#   release/sbom.sh CARGO_CYCLONEDX MANIFESTS FOLDER TARGET PROGRAM…
set -euo pipefail
cyclonedx=$(realpath "$1") manifests=$(realpath "$2") to=$3 target=$4
shift 4
rm -rf "$to"
mkdir -p "$to"
# With a date, it leaves out the random serial number.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
"$cyclonedx" cyclonedx --quiet --manifest-path "$manifests/Cargo.toml" --target "$target" \
    --format json --describe binaries
for program; do
    # It writes beside the manifest, and names crates of this workspace by where they are.
    written=$(find "$manifests" -name "${program}_bin.cdx.json")
    sed "s|path+file://$manifests|path+file:///crossmesh|g" "$written" > "$to/$program.cdx.json"
done
