# Set-up shared by bin/test and bin/demo: sourced, never run. Needs bash, and nothing else of a fresh Debian 12.
#
#   setup    makes .venv from requirements.lock if it is not there or not current, and puts it first on PATH
#   packages NAME...   makes sure of Debian packages; installs what is missing where we are root
#
# Exit 3: something must be installed that we cannot install; the message names it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
VENV=${FIRSTLIGHT_VENV:-$ROOT/.venv}

say() { printf '%s\n' "$*" >&2; }

missing() {
  say "missing Debian package: $*"
  say "what to do: apt-get update && apt-get install $*   (as root), then run this again"
  exit 3
}

# packages NAME...: install what dpkg does not know as installed.
packages() {
  local name wanted=()
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' || wanted+=("$name")
  done
  [ ${#wanted[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then missing "${wanted[@]}"; fi
  say "installing Debian packages: ${wanted[*]}"
  local log
  log=$(mktemp)
  if ! { DEBIAN_FRONTEND=noninteractive apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${wanted[@]}"; } >"$log" 2>&1 </dev/null
  then
    tail -n 20 "$log" >&2
    rm -f "$log"
    missing "${wanted[@]}"
  fi
  rm -f "$log"
}

# What the tests and `bin/demo --access real` use that others wrote.
THIRD_PARTY=(hostapd eapoltest wpasupplicant freeradius osmo-hlr mosquitto nftables iproute2 util-linux)

# third_party: install that where we are root; elsewhere say what is not there. Returns 1 if something is missing.
third_party() {
  local name wanted=()
  for name in "${THIRD_PARTY[@]}"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' || wanted+=("$name")
  done
  [ ${#wanted[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && (packages "${wanted[@]}"); then
    third_party_quiet
    return 0
  fi
  say "networks and services that others wrote are left out, for want of: ${wanted[*]}"
  return 1
}

# Debian starts some of them as services of the machine; nothing here wants that.
third_party_quiet() {
  local name
  command -v systemctl >/dev/null || return 0
  for name in freeradius osmo-hlr mosquitto; do
    systemctl disable --now "$name" >/dev/null 2>&1 || true
  done
}

# Print the first Python of at least 3.11 that satisfies the given test program.
python_that() {
  local candidate
  for candidate in ${FIRSTLIGHT_PYTHON:+"$FIRSTLIGHT_PYTHON"} /usr/bin/python3 python3.11 python3.12 python3.13 python3; do
    candidate=$(command -v "$candidate" 2>/dev/null) || continue
    if "$candidate" -I -c "import sys; assert sys.version_info >= (3, 11); $1" 2>/dev/null; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

find_python() {
  python_that "import venv, ensurepip" && return 0
  if python_that "pass" >/dev/null; then packages python3-venv; else packages python3 python3-venv; fi
  python_that "import venv, ensurepip" && return 0
  missing python3-venv
}

# What the environment was made from; another stamp means: make it again.
stamp_of() {
  { "$1" -I -c 'import sys; print(sys.version, sys.prefix)'; printf '%s\n' "$VENV"
    cat "$ROOT/requirements.lock" "$ROOT/pyproject.toml"; } | sha256sum | cut -d' ' -f1
}

fill_venv() {
  local python=$1
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
  "$python" -m venv "$VENV" || return
  "$VENV/bin/python" -m pip --quiet --no-input --disable-pip-version-check install \
    --require-hashes --no-deps -r "$ROOT/requirements.lock" || return
  "$VENV/bin/python" -m pip --quiet --no-input --disable-pip-version-check install \
    --no-deps --no-index --no-build-isolation -e "$ROOT" || return
}

setup() {
  local python stamp began=$SECONDS
  command -v flock >/dev/null || packages util-linux
  mkdir -p "$VENV"
  exec 9>"$VENV/.lock"
  flock 9
  python=$(find_python) || exit $?
  stamp=$(stamp_of "$python")
  if [ "$(cat "$VENV/.stamp" 2>/dev/null)" != "$stamp" ] || ! "$VENV/bin/python" -I -c "import firstlight" 2>/dev/null; then
    say "set-up: making $VENV with $python"
    unset PYTHONPATH PYTHONHOME
    fill_venv "$python" || { say "set-up failed: see above"; exit 1; }
    printf '%s\n' "$stamp" >"$VENV/.stamp"
    say "set-up: done in $((SECONDS - began)) s"
  fi
  flock -u 9
  exec 9>&-
  unset PYTHONPATH PYTHONHOME
  export VIRTUAL_ENV=$VENV PATH="$VENV/bin:$PATH"
}
