"""What tasks do to the world: mail, Discord, images; nothing here knows of tasks, settings or the database."""
