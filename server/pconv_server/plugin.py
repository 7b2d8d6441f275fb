"""Installing the GIMP plug-in: our files, the pure-Python packages that they need, and how to reach the server."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pconv_api

from pconv_server.connection import Connection, choose_token, default_address, read_connection, write_connection
from pconv_server.errors import SetupError
from pconv_server.info import version

NAME = "pconv-inpaint"
ENTRY = f"{NAME}.py"
GENERATED_FOR_SERVERS = ("*_pb2_grpc.py", "*.pyi", "__pycache__", "py.typed", "*.proto")


def source_folder() -> Path:
    """Where the plug-in is: in the installed package, or in the checkout.

    Raises:
        SetupError: It is in neither, or has not been built.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "gimp" / NAME, here.parents[2] / "plugins" / "gimp" / NAME):
        if (folder / ENTRY).is_file():
            if not (folder / "vendor" / "grpclib").is_dir():
                raise SetupError(f"{folder} lacks its packages: run `python hatch_build.py`, or install pconv again")
            return folder
    raise SetupError("the plug-in is not in this installation: install pconv again")


def find_profiles(home: Path, environment: Mapping[str, str], platform: str) -> list[Path]:
    """The folders where GIMPs of version 3 keep a user's plug-ins and settings.

    Args:
        home: Of the user.
        environment: As `os.environ`.
        platform: As `sys.platform`.
    """
    if environment.get("GIMP3_DIRECTORY"):  # GIMP itself looks nowhere else then
        return [Path(environment["GIMP3_DIRECTORY"])]
    if platform == "win32":
        roots = [Path(environment.get("APPDATA") or home / "AppData" / "Roaming") / "GIMP"]
    elif platform == "darwin":
        roots = [home / "Library" / "Application Support" / "GIMP"]
    else:
        roots = [
            Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "GIMP",  # flatpaks of GIMP 3 too
            home / ".var" / "app" / "org.gimp.GIMP" / "config" / "GIMP",
            home / "snap" / "gimp" / "current" / ".config" / "GIMP",
        ]
    return [path for root in roots for path in sorted(root.glob("3.*")) if path.is_dir()]


def profiles() -> list[Path]:
    """This user's; see `find_profiles`.

    Raises:
        SetupError: There are none.
    """
    found = find_profiles(Path.home(), os.environ, sys.platform)
    if not found:
        raise SetupError(
            "no profile of GIMP 3 found: start GIMP once and close it, then try again; or name the folder of the "
            "profile (in GIMP: Edit → Preferences → Folders → Plug-ins, the folder above the first) with --target"
        )
    return found


def plugin_folder(profile: Path) -> Path:
    """Where the plug-in lies in a profile; folder and entry must have the same name."""
    return profile / "plug-ins" / NAME


def install(profile: Path) -> Path:
    """Put the plug-in into a profile; an older one is replaced whole.

    Raises:
        SetupError: The plug-in is not here, or the profile cannot be written.
    """
    source, target = source_folder(), plugin_folder(profile)
    known = read_connection()
    if known is None:
        known = Connection(default_address(), choose_token(None))
        write_connection(known)
    fresh = target.with_name(f".{NAME}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fill_folder(source, fresh)
        write_connection(known, fresh / "connection.json")
        # Of the plug-in's button. -P: what lies in the folder where it starts is not to be imported.
        command = [sys.executable, "-P", "-m", "pconv_server", "serve"]
        (fresh / "server.json").write_text(json.dumps({"command": command}) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise SetupError(f"cannot write {error.filename or target}: {error.strerror}") from error
    return target


def fill_folder(source: Path, target: Path) -> None:
    """Copy the plug-in and what it imports; all but the way to the server."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "connection.json"))
    contract = Path(pconv_api.__file__).parent
    shutil.copytree(contract, target / "vendor" / "pconv_api", ignore=shutil.ignore_patterns(*GENERATED_FOR_SERVERS))
    (target / "VERSION").write_text(version() + "\n", encoding="utf-8")
    (target / ENTRY).chmod(0o755)  # else GIMP passes over it in silence


def uninstall(profile: Path) -> bool:
    """Remove the plug-in from a profile; False: there was none."""
    target = plugin_folder(profile)
    if not target.is_dir():
        return False
    shutil.rmtree(target)
    return True


def installed_version(profile: Path) -> str | None:
    """Version of the plug-in in a profile; None: there is none."""
    try:
        return (plugin_folder(profile) / "VERSION").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def write_zip(folder: Path) -> Path:
    """Pack the plug-in for a machine where pconv is not installed; it finds a server by its `connection.json`."""
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        fill_folder(source_folder(), Path(scratch) / NAME)
        return Path(shutil.make_archive(str(folder / f"{NAME}-{version()}"), "zip", scratch))


if __name__ == "__main__":
    print(write_zip(Path(sys.argv[1])))
