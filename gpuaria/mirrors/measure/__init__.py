"""Finding out what a mirror is worth: from its name to its bytes, in one budget of time. See survey.py."""
