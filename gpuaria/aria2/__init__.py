"""aria2c: find the binary, run or attach to the daemon, speak its RPC. How it behaves is in docs/aria2.md."""
