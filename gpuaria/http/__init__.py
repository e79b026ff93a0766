"""HTTP: client, connections, redirects, retries, rate limits, credentials, byte ranges."""
