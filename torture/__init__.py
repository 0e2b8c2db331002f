"""A campaign against the real service: killed, drained, frozen, cut off under load, judged."""
