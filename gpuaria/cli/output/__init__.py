"""Output of the commands: text for people, JSON for programs. Only this package and the command modules print."""
