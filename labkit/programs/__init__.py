"""Programs that run on a node or in a task, by `python3 -c`: plain Python and nothing of labkit."""
