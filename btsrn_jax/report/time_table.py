"""The table of where the time of runs went."""

from collections.abc import Sequence

from btsrn_jax import training
from btsrn_jax.report.tables import ReportedModel, Table

NOTE = (
    "Each session from reading the images to its last step. One that was killed, or"
    " ended by a signal during a validation, left no figures. Patches a second and"
    " utilisation are those of the steps with their waits for data; utilisation is the"
    " network's arithmetic over what the devices can compute."
)


def time_table(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns where the time of each run went, its sessions summed; None where no run
    tells."""
    lines = []
    for entry in entries:
        whole = training.together(training.read_sessions(entry.metrics))
        if whole is None:
            continue
        line = [entry.name, str(whole.count), f"{whole.total / 60:.1f}"]
        for part in training.PARTS:
            line.append(f"{100 * whole.seconds[part] / whole.total:.1f} %")
        used = whole.utilisation
        line.append(f"{whole.rate:.3g}" if whole.rate else "")
        lines.append([*line, "" if used is None else f"{100 * used:.0f} %"])
    if not lines:
        return None
    parts = [part.replace("_", " ") for part in training.PARTS]
    header = ["run", "sessions", "minutes", *parts, "patches/s", "utilisation"]
    return Table("time", "Shares of the time of each run", header, lines, [NOTE])
