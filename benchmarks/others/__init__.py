"""Other queues, and FastAPI, behind the same route with the same answer and the same task."""
