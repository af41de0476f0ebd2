"""Marking submissions: found, merged with the source, run shut in, scored, given back."""
