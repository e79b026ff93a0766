"""The command line: one short module per command. Only this package prints."""
