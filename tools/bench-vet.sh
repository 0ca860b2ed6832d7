#!/usr/bin/env bash
# Vets those packages of the bench module that do not import a peer: the peers are large
# and only `make bench` needs them built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../bench" 2>/dev/null || exit 0

own=()
while read -r dir; do
	grep -qE '^\s*(_ |\w+ )?"github\.com/pocketbase/' "$dir"/*.go || own+=("$dir")
done < <(find . -name '*.go' -not -path '*/testdata/*' -printf '%h\n' | sort -u)

if ((${#own[@]})); then
	echo "go vet bench: ${own[*]}"
	go vet "${own[@]}"
fi
