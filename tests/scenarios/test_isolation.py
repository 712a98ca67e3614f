"""A device needs nothing but its own directory: it is replayed where everything else is hidden from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import firstlight
from firstlight.testing.lab import Lab

# A new root in a tmpfs: the system's libraries and the program read-only, the device's directory, and nothing else.
HIDE = """
set -eu
root=$1 device=$2; shift 2
mount -t tmpfs none "$root"
for path in "$@"; do
  mkdir -p "$root$path"
  mount --bind "$path" "$root$path"
  mount -o remount,ro,bind "$root$path"
done
mkdir -p "$root/device" "$root/dev"
mount --bind "$device" "$root/device"
for node in null urandom; do : >"$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
for link in bin lib lib64 sbin; do [ -L "/$link" ] && ln -s "usr/$link" "$root/$link"; done
find "$root/device" >"$root/device/.before"
exec env -i /usr/sbin/chroot "$root" "$PYTHON" -m firstlight device run /device --once --for 240 --json
"""


def test_a_device_connects_from_a_mount_namespace_that_hides_everything_else(lab: Lab, tmp_path: Path) -> None:
    device = lab.device()
    assert sorted(path.name for path in device.iterdir()) == ["attestation.pem", "birth.cbor", "identity.pem"]
    source = Path(firstlight.__file__).parents[1]
    program = sorted({sys.prefix, sys.base_prefix, str(source)} - {"/usr"})
    hidden = tmp_path / "root"
    hidden.mkdir()
    flags = [] if os.geteuid() == 0 else ["--map-root-user", "--user"]
    done = subprocess.run(
        ["unshare", *flags, "--mount", "sh", "-c", HIDE, "sh", str(hidden), str(device), "/usr", *program],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"connected" in done.stdout
    assert not any(hidden.iterdir()), "the mounts were the namespace's own"
    assert str(lab.places.root).encode() not in done.stdout
