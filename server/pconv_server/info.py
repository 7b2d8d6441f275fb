"""Facts about this process for `status`, the log and the line at start."""

import importlib.metadata
import json
import logging
import logging.handlers
import os
import time
from pathlib import Path

from pconv_server.connection import config_folder

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def version() -> str:
    """Of the distribution; "0" when run from a source tree that was never installed."""
    try:
        return importlib.metadata.version("pconv")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def log_file() -> Path:
    """Where the server writes its log."""
    return config_folder() / "server.log"


def memory_bytes(device: str) -> tuple[int, int]:
    """Memory of a device in all, and what this process uses of it; 0 where the system does not tell."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return total, total - free
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page
        return os.sysconf("SC_PHYS_PAGES") * page, resident
    except (OSError, ValueError, AttributeError):
        return 0, 0


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def log_to_file(path: Path) -> None:
    """Write this package's log to a file that never grows beyond a few megabytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=2_000_000, backupCount=2, encoding="utf-8", delay=True
    )
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("pconv_server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
