#!/usr/bin/env bash
# Runs every native fuzz target of the module, one after the other, for the given time each.
# usage: tools/fuzz.sh 30s
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fuzztime=${1:?usage: tools/fuzz.sh DURATION}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Packages without a target are left out by source, which saves linking their tests.
mapfile -t packages < <(grep -rlE --include='*_test.go' --exclude-dir={bench,testdata,node_modules} '^func Fuzz' . |
	xargs -r -n1 dirname | sort -u)
if ((${#packages[@]} == 0)); then
	echo "no fuzz targets"
	exit 0
fi

# `go test -list` prints a package's targets and after them a line "ok <package> <time>".
targets=$(go test -list '^Fuzz' "${packages[@]}" |
	awk '/^Fuzz/ { names[n++] = $1 } /^ok/ { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }')

while read -r package target; do
	if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 5s "$package" \
		</dev/null >"$log" 2>&1; then
		# At times the engine reports its own deadline as a failure (go.dev/issue/75804, fixed
		# in Go 1.27). A finding always names the input that it wrote; this names none.
		if grep -q 'Failing input' "$log" || ! grep -qx ' *context deadline exceeded' "$log"; then
			cat "$log"
			exit 1
		fi
	fi
	echo "fuzzed $package $target: $(grep -oE 'execs: [0-9]+' "$log" | tail -1)"
done <<<"$targets"
