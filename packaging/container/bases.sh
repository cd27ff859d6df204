#!/usr/bin/env bash
# The bases of the image by the digest that their tags have now, as lines BUILD=…@sha256:… and BASE=…. The digest is that of the
# list of all platforms. Asks the registries; needs docker with buildx, and jq.
set -euo pipefail
cd "$(dirname "$0")"
for name in BUILD BASE; do
    tag=$(sed -n "s/^ARG $name=//p" Containerfile)
    digest=$(docker buildx imagetools inspect "$tag" --format '{{json .Manifest}}' | jq -r .digest)
    [[ $digest == sha256:* ]] || {
        echo "packaging/container/bases.sh: $tag has no digest" >&2
        exit 1
    }
    echo "$name=$tag@$digest"
done
