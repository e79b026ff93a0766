"""Name resolution: the system's resolver, the resolvers in the settings, and detection of false answers."""
