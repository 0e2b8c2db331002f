"""How a task survives its request: the seam with Starlette, one attempt, and where attempts run."""
