#!/usr/bin/env bash
# Runs every native fuzz target of the module for the given time each, one target per processor.
#
#	tools/fuzz.sh 30s		as go test -fuzz does, guided by coverage
#	tools/fuzz.sh -blind 3s		without: nothing is compiled anew, and inputs are tried faster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=(go test -c -fuzz .)
if [[ ${1-} == -blind ]]; then
	build=(go test -c)
	shift
fi
export fuzztime=${1:?usage: tools/fuzz.sh [-blind] DURATION}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export work corpus
corpus=$(go env GOCACHE)/fuzz # where go test -fuzz keeps what it finds

# fuzz BINARY DIRECTORY PACKAGE TARGET
fuzz() {
	local log
	log=$work/$(basename "$1").$4.log
	if ! (cd "$2" && "$1" -test.run '^$' -test.fuzz "^$4\$" -test.fuzztime "$fuzztime" -test.fuzzminimizetime 5s \
		-test.parallel 1 -test.fuzzcachedir "$corpus/$3") </dev/null >"$log" 2>&1; then
		# At times the engine reports its own deadline as a failure (go.dev/issue/75804, fixed
		# in Go 1.27). A finding always names the input that it wrote; this names none.
		if grep -q 'Failing input' "$log" || ! grep -qx ' *context deadline exceeded' "$log"; then
			cat "$log"
			return 255 # xargs starts no further target
		fi
	fi
	echo "fuzzed $3 $4: $(grep -oE 'execs: [0-9]+' "$log" | tail -1)"
}
export -f fuzz

# Packages without a target are left out by source. The others are linked once each, while the
# targets of the one before are running.
grep -rlE --include='*_test.go' --exclude-dir={bench,testdata,node_modules} '^func Fuzz' . |
	xargs -n1 dirname | sort -u |
	while read -r dir; do
		binary=$work/${dir//[.\/]/_}.test
		"${build[@]}" -o "$binary" "$dir" </dev/null
		package=$(go list "$dir")
		for target in $("$binary" -test.list '^Fuzz'); do
			printf '%s\n' "$binary" "$dir" "$package" "$target"
		done
	done |
	xargs -n4 -P"$(nproc)" bash -euo pipefail -c 'fuzz "$@"' fuzz
