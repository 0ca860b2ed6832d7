#!/usr/bin/env bash
# Unpacks nginx and Caddy of the distribution (Debian or a relative) into a directory, for tests that put them in
# front of a server:
#
#	tools/proxies.sh .bin/proxies	makes .bin/proxies/nginx and .bin/proxies/caddy
#
# It needs no root, installs nothing, starts nothing, and leaves apt's own lists alone.
set -euo pipefail

target=${1:?usage: tools/proxies.sh DIRECTORY}
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT

mkdir -p "$work"/{lists,archives}/partial "$work"/{debs,out/tree}
apt=(-q -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o "APT::Sandbox::User=$(id -un)")
apt-get "${apt[@]}" update

# With the libraries that they name, except the C library, which has to be the machine's.
mapfile -t libraries < <(apt-cache "${apt[@]}" depends --important nginx caddy |
	awk '$1 == "Depends:" && $2 ~ /^(lib|zlib)/ && $2 !~ /^(libc6|libnss3-tools)$/ { print $2 }' | sort -u)
(cd "$work/debs" && apt-get "${apt[@]}" download nginx caddy "${libraries[@]}")
for package in "$work"/debs/*.deb; do
	dpkg-deb -x "$package" "$work/out/tree"
done

search=''
while read -r dir; do
	search+="${search:+:}\$tree/$dir"
done < <(cd "$work/out/tree" && find -- * -name 'lib*.so.*' -printf '%h\n' | sort -u)

for program in usr/sbin/nginx usr/bin/caddy; do
	file=$work/out/$(basename "$program")
	cat >"$file" <<END
#!/bin/sh
tree=\$(dirname "\$(realpath "\$0")")/tree
LD_LIBRARY_PATH="$search" exec "\$tree/$program" "\$@"
END
	chmod +x "$file"
done
"$work/out/nginx" -v
"$work/out/caddy" version

rm -rf "$target"
mv "$work/out" "$target"
