"""Environments of the load generators that perfbench is compared with, each of its own: `python -m benchmarks.load.install FOLDER [NAME...]`.

uv resolves and installs; torch is the CPU build that this project has locked, or absent. One that cannot be installed is left out, aloud.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

PEERS = {
    "guidellm": ("guidellm==0.8.1", "3.11"),
    "aiperf": ("aiperf==0.13.0", "3.11"),
    "inference-perf": ("inference-perf==0.7.0", "3.12"),
    "evalscope": ("evalscope[perf]==1.14.1", "3.11"),
}
"""What is installed, and the least Python that it takes."""
_TIMEOUT_S = 600
_OVERRIDES = "torch==2.13.0+cpu\ntorchvision; sys_platform == 'never'\ntorchaudio; sys_platform == 'never'\ntriton; sys_platform == 'never'\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; without one, all")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in PEERS]:
        parser.error(f"{', '.join(unknown)}: no such load generator; choose from {', '.join(PEERS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    overrides = options.folder / "overrides.txt"
    overrides.write_text(_OVERRIDES)
    left_out = [name for name in options.names or PEERS if not install(name, options.folder, overrides)]
    return 1 if left_out else 0


def install(name: str, folder: Path, overrides: Path) -> bool:
    """Make one environment; says why when it cannot be made."""
    package, python = PEERS[name]
    uv = str(Path(sys.executable).with_name("uv"))
    wheels = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.find-links"], check=False, capture_output=True, text=True).stdout.split()
    links = [option for folder_of_wheels in wheels for option in ("--find-links", folder_of_wheels)]
    environment = folder / name
    into = ["--python", str(environment / "bin" / "python"), "--overrides", str(overrides)]
    for command in ([uv, "venv", "-q", "--clear", "--python", _python(python), str(environment)], [uv, "pip", "install", "-q", *into, *links, package]):
        try:
            subprocess.run(command, check=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name}: left out: {error}", flush=True)
            return False
    print(f"{name}: {package} is in {environment}", flush=True)
    return True


def _python(version: str) -> str:
    """An interpreter of this version that is here: uv's own search, which does not look into pyenv, comes last."""
    if sys.version_info[:2] >= tuple(map(int, version.split("."))):
        return sys.executable
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(versions.glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else version


if __name__ == "__main__":
    sys.exit(main())
