"""What tasks do to the world: mail, Discord, pictures; it knows nothing of tasks or settings."""
