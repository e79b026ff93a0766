"""What the tests share: a user with a home of their own, stand-in repos, name servers, TLS fronts."""
