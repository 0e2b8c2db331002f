"""A campaign against the real service: it is killed, drained, frozen, locked out and cut off under load, and judged."""
