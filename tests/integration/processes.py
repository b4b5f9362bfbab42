"""Processes of the host."""


def runs(pid):
    """False for one that has ended and that the host's init has yet to reap, too."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
