"""The HTTP side: status endpoints, metrics and the live page.

    server.py    the Service: the socket, its start and its end
    source.py    what the process must tell, and how it is asked no more often than needed
    access.py    who may read: tokens, loopback, Host header
    problems.py  every error as application/problem+json
    health.py    /livez /readyz /healthz
    api.py       /api/v1/status and /api/v1/stream
    metrics.py   /metrics
    page.py      / and /static

Nothing here touches the database: every figure comes from the StatusSource that the composition hands in.
"""
