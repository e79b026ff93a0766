"""The audit log: a line for each published file and each run, and the trace from a file to its run."""
