"""The report: one HTML page for a run or for several, complete in itself."""
