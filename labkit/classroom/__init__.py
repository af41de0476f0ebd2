"""A class: the check of each machine the evening before, the report on all of them, and slides."""
