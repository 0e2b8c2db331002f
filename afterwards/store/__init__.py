"""The database: its connections, its tables and their migrations, and every statement."""
