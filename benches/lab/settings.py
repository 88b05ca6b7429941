"""What a subject is asked to be: protocol, proxies in a row, and what goes on between them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Setting:
    # http1, http2, grpc (HTTP/2 with trailers) or tcp.
    protocol: str
    # plain: one proxy. pair: two, mutual TLS between them. side: one that takes mutual TLS.
    chain: str
    # The application's port.
    upstream: int
    # HTTP between the two of a pair, where the peer can choose: http1 or http2.
    inside: str = ""
    # Whether sessions of TLS may be resumed.
    resume: bool = False
    # Connections at once.
    connections: int = 1000
    # Further services that nobody calls.
    services: int = 0
    # What the service's port is declared as, for Weft.
    declared: str = ""

    def hops(self):
        """Each proxy: whether it takes TLS, and whether it calls with TLS; the application's first."""
        return {"plain": [(False, False)], "side": [(True, False)], "pair": [(True, False), (False, True)]}[self.chain]

    def protocol_of(self, takes_tls, calls_tls):
        """What a proxy of this chain speaks downstream and upstream."""
        inside = self.inside or self.protocol
        return (inside if takes_tls else self.protocol, inside if calls_tls else self.protocol)
