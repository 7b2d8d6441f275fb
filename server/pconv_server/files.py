"""Writing files whole. `pconv.checkpoint` can do it too, but takes seconds to import, with torch."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file so that a crash or a full disk leaves the old one or the new one, never a part.

    Args:
        path: Its folder is made if need be.
        data: All of it.
        mode: Permissions from the first byte on, less what the umask takes away.

    Raises:
        OSError: The disk is full or the folder not writable; an old file at `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
