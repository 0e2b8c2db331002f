"""What the effects do, against tiny real servers on loopback."""
