"""Grading: find submissions, merge them with the source, run them in a sandbox, score, give back."""
