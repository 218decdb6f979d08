#!/usr/bin/env bash
# Tries what the Containerfile does, without a container engine: the builder's commands on exactly the files that
# .dockerignore lets through, and the program in a fresh Debian of the same release, as the user of the image.
# As root, with debootstrap (its folder of scripts in DEBOOTSTRAP_DIR where it is not installed), rust and gcc.
#
#     tools/release/container-check.sh FOLDER      # 400 MB; the Debian in it is used again
#
# What it does not try: the base images by their names, the installation of gcc in the first, layers and caches, and
# a GPU inside of a container.
set -euo pipefail
work="$(mkdir -p "${1:?usage: container-check.sh FOLDER}" && cd "$1" && pwd)"
cd "$(dirname "$0")/../.."
say() { printf '\n== %s\n' "$*"; }

suite="$(sed -n 's/^ARG RUNTIME=.*debian:\([a-z]*\)-slim$/\1/p' Containerfile)"
uid="$(sed -n 's/^USER \([0-9]*\):.*/\1/p' Containerfile)"
[ -n "$suite" ] && [ -n "$uid" ] || { echo "the Containerfile names no Debian or no user" >&2; exit 1; }

say "the files that .dockerignore lets through"
rm -rf "$work/source"
mkdir -p "$work/source"
# A line with ! lets a path through again; all the rest is left out by the line with the star.
grep '^!' .dockerignore | cut -c2- | while read -r path; do
    git ls-files -z -- "$path" | xargs -0 cp --parents -t "$work/source"
done
(cd "$work/source" && find . -type f | wc -l)

say "the builder's commands"
built="${CARGO_TARGET_DIR:-$work/source/target}/dist/bninception"
(cd "$work/source" && cargo build --locked --profile dist --package bninception)

say "a fresh Debian $suite"
root="$work/debian-$suite"
[ -e "$root/done" ] || {
    rm -rf "$root"
    debootstrap --variant=minbase "$suite" "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    touch "$root/done"
}

say "the runtime's commands"
install -m 755 "$built" "$root/usr/local/bin/bninception"
# The image's own lines, which make the user and the folders.
commands="$(sed -n '/^RUN useradd/,/[^\\]$/p' Containerfile | sed 's/^RUN //')"
chroot "$root" sh -ec "userdel bninception 2>/dev/null || true; rm -rf /data /runs; $commands"
as_user() { chroot --userspec="$uid:$uid" "$root" /usr/bin/env -i BNINCEPTION_CACHE=/runs/.cache sh -ec "cd /runs && $1"; }

say "libraries that it asks for"
chroot "$root" ldd /usr/local/bin/bninception
if chroot "$root" ldd /usr/local/bin/bninception | grep 'not found'; then
    echo "the image lacks a library" >&2
    exit 1
fi

say "the program, as user $uid"
as_user 'bninception --version'
as_user 'bninception train --preset smoke --steps 2 --run-dir /runs/smoke'
as_user 'bninception eval /runs/smoke | head -1'
as_user 'test -O /runs/smoke/last.safetensors'
if as_user 'touch /usr/local/bin/other 2>/dev/null'; then
    echo "the user can write into the image" >&2
    exit 1
fi
say "passed"
