"""A throw-away Python that runs Firstlight as it is installed, with the hook loaded into devices and servers."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

HOOK = Path(__file__).with_name("hook.py")


def make_interpreter(root: Path) -> Path:
    """Make a virtual environment in ``root`` that sees what this one sees, and the hook; return its program."""
    real = Path(os.path.realpath(sys.executable))
    packages = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "power").mkdir()
    (root / "hooks").mkdir()
    (root / "hooks" / "power_hook.py").symlink_to(HOOK)
    (root / "pyvenv.cfg").write_text(f"home = {real.parent}\ninclude-system-site-packages = false\n")
    (packages / "power.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        f"import sys; sys.path.insert(0, {str(root / 'hooks')!r}); import power_hook; del sys.path[0]\n"
    )
    program = root / "bin" / "python"
    program.symlink_to(real)
    return program
