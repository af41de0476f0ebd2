"""From the labs' sources to notebooks, to a run of them, to reports and the ledger of claims."""
