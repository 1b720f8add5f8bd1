"""MongoDB: finding and reaching the server, its users and passwords, and the agent that monitors it."""
