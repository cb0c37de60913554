#!/usr/bin/env bash
# Builds the programs of a release: with the list of their dependencies in each, and without the folders of this
# machine, so that they are the same wherever they are built.
#
#   release/build.sh CARGO_AUDITABLE TARGET_FOLDER "TARGET…" PROGRAM…
set -euo pipefail
auditable=$1 made=$2
read -ra targets <<< "$3"
shift 3

# C code for another architecture needs a compiler of its own, which also links: Debian names it after the architecture.
for target in "${targets[@]}"; do
    architecture=${target%%-*}
    if [[ $architecture != $(uname -m) ]]; then
        linker=CARGO_TARGET_$(tr a-z- A-Z_ <<< "$target")_LINKER
        export "$linker=${!linker:-$architecture-linux-gnu-gcc}"
        command -v "${!linker}" > /dev/null || {
            echo "no ${!linker} to build for $target: install gcc-${architecture/_/-}-linux-gnu, or name other TARGETS" >&2
            exit 1
        }
    fi
done

# Where the crates' sources are is known once they are there.
cargo fetch --locked
cargo=${CARGO_HOME:-$HOME/.cargo}
rust=$(rustc --print sysroot)/lib/rustlib/src/rust
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')

renamed=("$cargo=/cargo" "$rust=/rustc/$commit" "$PWD=/crossmesh")
for registry in "$cargo"/registry/src/*; do
    renamed+=("$registry=/cargo/registry")
done
flags=$(printf "'--remap-path-prefix=%s'," "${renamed[@]}")
printf -v c_flags ' -ffile-prefix-map=%s' "${renamed[@]}"

# As an option, it joins the flags of .cargo/config.toml; as RUSTFLAGS, it would replace them.
CFLAGS="${CFLAGS:-}$c_flags" env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
    "$auditable" auditable build --release --locked "${targets[@]/#/--target=}" "${@/#/--package=}" --target-dir "$made" \
    --config "target.'cfg(all())'.rustflags=[$flags]"
