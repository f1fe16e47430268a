#!/usr/bin/env bash
# Builds the image of a version from scratch: no registry, no base image.
#
# use: service/build.sh VERSION [BREAKS]    BREAKS=l09-api-gateway:30: the mistake that this version has
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p build
if [ ! -x build/service ] || [ main.rs -nt build/service ]; then
    "${RUSTC:-rustc}" --edition 2024 -O -C target-feature=+crt-static -C strip=symbols -C panic=abort main.rs -o build/service.new
    mv build/service.new build/service
fi
cp Dockerfile build/
# The classic builder: the other one is a plug-in that is not everywhere, and there is nothing here that it does better.
DOCKER_BUILDKIT=0 docker build -q --build-arg "VERSION=$1" --build-arg "BREAKS=${2:-}" -t "agentic-platform/service:$1" build 2>/dev/null
