"""The audit log: one record for each published file, and the trace of a file back to its run."""
