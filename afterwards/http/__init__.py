"""What is asked of tasks over HTTP."""
