"""What a lab asked of its swarm and was answered: kept in a file, read back, audited, replayed."""
