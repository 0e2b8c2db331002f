"""The database: its engine, its tables, and one transaction for users and tasks."""
