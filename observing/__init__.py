"""How the service is watched: text in, text out, and what the agent's objects need; nothing imports the agent here."""
