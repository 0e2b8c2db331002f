"""Whose `sw8` is continued: a stranger's would draw services that there are not."""

# Loopback, private and link-local addresses: where one's own services call from.
PRIVATE = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)
