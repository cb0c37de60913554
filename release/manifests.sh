#!/usr/bin/env bash
# Copies the manifests of what is released, from which the lists of its dependencies are made: tests, and what only they
# need, would turn on features that no released program has. The sources say what is a program and what a library.
#
#   release/manifests.sh FOLDER TARGET…
set -euo pipefail
to=$1
shift
rm -rf "$to"
mkdir -p "$to"
find Cargo.toml Cargo.lock apps bins common mesh nss pod-role -path mesh/controller/descriptors -prune -o \
    -type f \( -name Cargo.toml -o -name Cargo.lock -o -name '*.rs' \) -exec cp --parents --target-directory "$to" {} +
cd "$to"
# The libraries are members because the programs name them.
sed -i 's|^members = .*|members = ["apps/*", "bins/*", "mesh/*"]|' Cargo.toml
find . -name Cargo.toml -exec sed -i '/^\[dev-dependencies\]$/,/^\[/ { /^\[dev-dependencies\]$/d; /^\[/!d }' {} +
# Takes out of Cargo.lock what nobody needs any more, and fetches the rest.
cargo fetch --quiet "${@/#/--target=}"
