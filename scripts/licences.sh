#!/bin/bash
# Fails if a crate that xrun is built from has a licence that deny.toml does not allow.
# The same check as `cargo deny check licenses`, without a tool that Debian does not package.
set -euo pipefail
cd "$(dirname "$0")/.."
allowed=$(sed -n '/^allow = \[/,/^\]/p' deny.toml | grep -o '"[^"]*"' | tr -d '"')
[ -n "$allowed" ] || { echo "licences: deny.toml allows nothing" >&2; exit 1; }
/usr/bin/cargo tree --workspace --target all --edges normal,build,dev --prefix none --format '{p}|{l}' |
    sed 's/ (\*)$//' | sort -u |
    awk -F'|' -v list="$allowed" '
        BEGIN { n = split(list, a, "\n"); for (i = 1; i <= n; i++) ok[a[i]] = 1 }
        NF == 2 {
            crates++
            # "A OR (B AND C)", and the older "A/B": one alternative must be allowed in whole.
            expression = $2
            gsub(/[()]/, "", expression)
            gsub(/ *\/ */, " OR ", expression)
            good = 0
            m = split(expression, alternative, / OR /)
            for (i = 1; i <= m && !good; i++) {
                k = split(alternative[i], part, / AND /)
                all = 1
                for (j = 1; j <= k; j++) if (!(part[j] in ok)) all = 0
                good = all
            }
            if (!good) { print "licences: " $1 ": \"" $2 "\" is not allowed"; bad++ }
        }
        END {
            if (!crates) { print "licences: no crate seen"; exit 1 }
            if (bad) exit 1
            print "licences: " crates " crates, all allowed"
        }'
