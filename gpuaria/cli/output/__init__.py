"""What commands print: text for people, JSON for programs. Only this room and the command modules print."""
