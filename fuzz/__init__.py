"""Hostile requests against the real service: `make fuzz`."""
