"""Apache SkyWalking: every line that touches the agent's insides."""
