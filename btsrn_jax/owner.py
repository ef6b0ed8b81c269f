"""Which process a lock file is of, and whether that process has ended.

What a process says of itself (`describe`) is read later by others: on the same machine,
in another container, on another host, after a restart (`is_gone`).
"""

import datetime
import os
import pathlib
import socket
import sys
import uuid
from collections.abc import Mapping
from typing import Any

FIRST_NAMESPACE = "pid:[4026531836]"  # Linux's own; containers have others


def describe(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what the lock of a folder says of this process."""
    _, started = _status(os.getpid())
    now = datetime.datetime.now().astimezone()
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": started,
        "since": now.isoformat(" ", "seconds"),
        "command": " ".join(sys.argv)[:200],
        "folder": str(folder.resolve()),
        "system": _system(),
        "machine": _text("/etc/machine-id"),
        "job": os.environ.get("SLURM_JOB_ID"),
        "attempt": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        "number": uuid.uuid4().hex,
    }


def is_gone(about: Mapping[str, Any], here: Mapping[str, Any]) -> bool | None:
    """Returns whether the process of a lock has ended; None if only its heartbeat can
    tell.

    Args:
      about: what the lock says of its process; {} where it is damaged.
      here: what this process says of itself in the same folder.
    """
    if about.get("system") == here["system"]:
        if not _is_running(about.get("process"), about.get("started")):
            return True
        # Else the folder is a copy, or was moved, or is mounted twice.
        return False if about.get("folder") == here["folder"] else None
    return True if _started_anew(about, here) or _queued_again(about, here) else None


def _system():
    """Returns what all processes that see each other's numbers have in common.

    Containers share a host's name or have process 1 as another one has: so it is the
    start of the kernel, and the namespace of process numbers.
    """
    boot = _text("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot or socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _started_anew(about, here):
    """Returns True if a lock is of this machine, before its kernel was last started."""
    same = all(
        here[name] and about.get(name) == here[name] for name in ("host", "machine")
    )
    systems = str(about.get("system")), here["system"]
    return same and all(system.endswith(FIRST_NAMESPACE) for system in systems)


def _queued_again(about, here):
    same = here["job"] and about.get("job") == here["job"]
    attempt = about.get("attempt")
    return bool(same) and isinstance(attempt, int) and attempt < here["attempt"]


def _is_running(process, started):
    if not isinstance(process, int) or process < 1:
        return True  # a damaged lock: its heartbeat decides
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    state, now = _status(process)
    if state in ("Z", "X"):  # dead; its parent has not asked for its exit code yet
        return False
    return now is None or started is None or now == started


def _status(process):
    """Returns a process's state and start time, (None, None) where none is known."""
    text = _text(f"/proc/{process}/stat")
    if not text:
        return None, None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], int(fields[19])  # in clock ticks since the kernel started


def _text(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except (OSError, ValueError):
        return None
