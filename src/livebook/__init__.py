"""The book's own machinery: run chapters, judge claims, draw figures, check and build the site.

What a chapter calls is imported when it is first called, so that commands start at once.
"""

from importlib import import_module

_HOMES = {
    "ledger": ("at_most", "judge", "verdicts"),
    "page": ("contact_sheet", "glue", "pick_device", "provenance", "show", "table"),
    "records": ("Checkpoint", "made_by", "record", "recorded"),
    "reproduction": ("TRAINED_BY", "paper"),
    "sweeps": ("rows", "sweep"),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> object:
    """What has that name, from its module."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
