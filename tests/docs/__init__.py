"""The documentation: its links, its code, and the site that is built of it."""
