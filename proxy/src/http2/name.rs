//! Names the proxy or the compression knows, as numbers: found once when a field is read, never compared again.

/// The name of a field if it is a known one. Numbers up to 61 are the first of that name in HPACK's static table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Name(pub(super) u8);

impl Name {
    /// Any other name, not even checked to be one.
    pub(super) const OTHER: Self = Self(0);
    pub(super) const AUTHORITY: Self = Self(1);
    pub(super) const METHOD: Self = Self(2);
    pub(super) const PATH: Self = Self(4);
    pub(super) const SCHEME: Self = Self(6);
    pub(super) const STATUS: Self = Self(8);
    pub(super) const ACCEPT_ENCODING: Self = Self(16);
    pub(super) const AUTHORIZATION: Self = Self(23);
    pub(super) const CONTENT_LENGTH: Self = Self(28);
    pub(super) const COOKIE: Self = Self(32);
    pub(super) const EXPECT: Self = Self(35);
    pub(super) const HOST: Self = Self(38);
    pub(super) const PROXY_AUTHORIZATION: Self = Self(49);
    pub(super) const SET_COOKIE: Self = Self(55);
    pub(super) const TRANSFER_ENCODING: Self = Self(57);
    /// The last of those in the static table.
    pub(super) const LAST_STATIC: Self = Self(61);
    pub(super) const CONNECTION: Self = Self(64);
    pub(super) const KEEP_ALIVE: Self = Self(65);
    pub(super) const PROXY_CONNECTION: Self = Self(66);
    pub(super) const UPGRADE: Self = Self(67);
    pub(super) const TE: Self = Self(68);
    pub(super) const HTTP2_SETTINGS: Self = Self(69);
    pub(super) const REQUEST_ID: Self = Self(70);
    /// `x-forwarded-client-cert`, also with `_` between its words.
    pub(super) const CLIENT_CERTIFICATE: Self = Self(71);
    pub(super) const WEFT_ERROR: Self = Self(72);
    pub(super) const PROTOCOL: Self = Self(73);

    /// Known names are lower case: another spelling is [`Self::OTHER`].
    pub(super) fn of(name: &[u8]) -> Self {
        let number = match name {
            b":authority" => 1,
            b":method" => 2,
            b":path" => 4,
            b":scheme" => 6,
            b":status" => 8,
            b"accept-charset" => 15,
            b"accept-encoding" => 16,
            b"accept-language" => 17,
            b"accept-ranges" => 18,
            b"accept" => 19,
            b"access-control-allow-origin" => 20,
            b"age" => 21,
            b"allow" => 22,
            b"authorization" => 23,
            b"cache-control" => 24,
            b"content-disposition" => 25,
            b"content-encoding" => 26,
            b"content-language" => 27,
            b"content-length" => 28,
            b"content-location" => 29,
            b"content-range" => 30,
            b"content-type" => 31,
            b"cookie" => 32,
            b"date" => 33,
            b"etag" => 34,
            b"expect" => 35,
            b"expires" => 36,
            b"from" => 37,
            b"host" => 38,
            b"if-match" => 39,
            b"if-modified-since" => 40,
            b"if-none-match" => 41,
            b"if-range" => 42,
            b"if-unmodified-since" => 43,
            b"last-modified" => 44,
            b"link" => 45,
            b"location" => 46,
            b"max-forwards" => 47,
            b"proxy-authenticate" => 48,
            b"proxy-authorization" => 49,
            b"range" => 50,
            b"referer" => 51,
            b"refresh" => 52,
            b"retry-after" => 53,
            b"server" => 54,
            b"set-cookie" => 55,
            b"strict-transport-security" => 56,
            b"transfer-encoding" => 57,
            b"user-agent" => 58,
            b"vary" => 59,
            b"via" => 60,
            b"www-authenticate" => 61,
            b"connection" => 64,
            b"keep-alive" => 65,
            b"proxy-connection" => 66,
            b"upgrade" => 67,
            b"te" => 68,
            b"http2-settings" => 69,
            b"x-request-id" => 70,
            b"weft-error" => 72,
            b":protocol" => 73,
            _ if is_client_certificate(name) => 71,
            _ => 0,
        };
        Self(number)
    }

    /// Every field of this name is spelled the same.
    pub(super) fn is_one_spelling(self) -> bool {
        self != Self::OTHER && self != Self::CLIENT_CERTIFICATE
    }

    pub(super) fn is_static(self) -> bool {
        self != Self::OTHER && self.0 <= Self::LAST_STATIC.0
    }
}

/// With `-` or `_` between the words: some applications cannot tell them apart.
fn is_client_certificate(name: &[u8]) -> bool {
    const NAME: &[u8; 23] = b"x-forwarded-client-cert";
    name.len() == NAME.len()
        && name.iter().zip(NAME).all(|(&have, &want)| have == want || (want == b'-' && have == b'_'))
}
