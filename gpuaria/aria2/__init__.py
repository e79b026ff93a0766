"""aria2c: find the binary, start or attach to a daemon, call its RPC. docs/aria2.md describes aria2c's behaviour."""
