"""Authoring: from a lab's source to its notebooks, a run of them, the report and the claims ledger."""
