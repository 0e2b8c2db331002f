"""How the service is watched, apart from SkyWalking's agent: plain text in, plain text out."""
