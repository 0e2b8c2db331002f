"""What a client sends and sees, apart from the routes: bodies in, problems out."""
