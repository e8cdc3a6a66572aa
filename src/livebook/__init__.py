"""The book's own machinery: run chapters, judge claims, draw figures, check and build the site."""

from .ledger import at_most, judge, verdicts
from .page import contact_sheet, glue, pick_device, provenance, show, table
from .records import Checkpoint, made_by, record, recorded

__all__ = [
    "Checkpoint",
    "at_most",
    "contact_sheet",
    "glue",
    "judge",
    "made_by",
    "pick_device",
    "provenance",
    "record",
    "recorded",
    "show",
    "table",
    "verdicts",
]
