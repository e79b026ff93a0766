"""Helpers of the tests: a user with a separate home folder, stand-in repos, name servers, TLS proxies."""
