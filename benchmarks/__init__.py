"""How fast the service is, always beside something else: `make bench` runs it all."""
