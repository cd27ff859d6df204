//! The addresses to which the client may connect.
//!
//! ```
//! use rotogate_core::http_client::{Allowed, Reach};
//!
//! let metadata = "169.254.169.254".parse()?;
//! assert_eq!(Reach::from_address(metadata), Reach::Never);
//! // A URL that a public issuer's discovery document names must not lead into the private network.
//! let allowed = Allowed::by_issuer("id.example.com", &["203.0.113.7".parse()?]);
//! assert!(allowed.permits("203.0.113.9".parse()?) && !allowed.permits("10.0.0.1".parse()?));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// Link-local, multicast, unspecified, broadcast, reserved, or a cloud's metadata service.
    Never,
    /// This machine.
    Loopback,
    /// A private or unrouted network: RFC 1918, `fc00::/7`, `100.64.0.0/10` and others.
    Private,
    /// All other addresses.
    Public,
}

/// Metadata services outside the link-local networks: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Metadata services over IPv6: Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)];

impl Reach {
    /// The class of an address, or of its embedded IPv4 address.
    pub fn from_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4),
            IpAddr::V6(v6) => Self::from_v6(v6),
        }
    }

    fn from_v4(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        match (a, b, c) {
            // 0.0.0.0 reaches this machine. Addresses from 224.0.0.0 on are multicast, reserved or broadcast.
            (0 | 224.., ..) | (169, 254, _) => Self::Never,
            _ if METADATA_V4.contains(&address) => Self::Never,
            (127, ..) => Self::Loopback,
            (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Self::Private,
            // IETF protocol assignments and benchmark networks.
            (192, 0, 0) | (198, 18 | 19, _) => Self::Private,
            _ => Self::Public,
        }
    }

    fn from_v6(address: Ipv6Addr) -> Self {
        if address == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        if let Some(v4) = embedded(address) {
            return Self::from_v4(v4);
        }
        match address.segments() {
            // Link-local, multicast, and the metadata services of AWS.
            [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] | [0xfd00, 0xec2, ..] => Self::Never,
            // The local-use NAT64 prefix (RFC 8215). The position of the embedded IPv4 address depends on the network,
            // so the gate cannot check the address.
            [0x64, 0xff9b, 1, ..] => Self::Never,
            _ if METADATA_V6.contains(&address) => Self::Never,
            // Unique local addresses, and the older site-local addresses.
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Self::Private,
            _ => Self::Public,
        }
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        // IPv4-mapped, IPv4-compatible (deprecated; includes `::`), IPv4-translated (SIIT) and NAT64 addresses.
        [0, 0, 0, 0, 0, 0xffff, h, l]
        | [0, 0, 0, 0, 0, 0, h, l]
        | [0, 0, 0, 0, 0xffff, 0, h, l]
        | [0x64, 0xff9b, 0, 0, 0, 0, h, l]
        // 6to4.
        | [0x2002, h, l, ..] => Some(v4(h, l)),
        // Teredo inverts each bit of the address.
        [0x2001, 0, .., h, l] => Some(v4(!h, !l)),
        _ => None,
    }
}

/// The addresses to which the client may connect for a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    link_local: bool,
    loopback: bool,
    private: bool,
    public: bool,
}

impl Allowed {
    /// The rules for a URL that the operator configured.
    pub const fn by_operator() -> Self {
        Self { link_local: false, loopback: true, private: true, public: true }
    }

    /// The rules for a URL from an issuer's document. Permits loopback if `host` is loopback, and private addresses if
    /// `addresses` contains one.
    pub fn by_issuer(host: &str, addresses: &[IpAddr]) -> Self {
        let private = addresses.iter().any(|address| Reach::from_address(*address) == Reach::Private);
        Self { link_local: false, loopback: is_loopback(host), private, public: true }
    }

    /// Also permits link-local addresses, including metadata services. Use this only if the operator explicitly
    /// permitted them.
    #[must_use]
    pub const fn with_dangerous_link_local(mut self) -> Self {
        self.link_local = true;
        self
    }

    pub(super) const fn loopback() -> Self {
        Self { link_local: false, loopback: true, private: false, public: false }
    }

    /// Whether the client may connect to this address.
    pub fn permits(self, address: IpAddr) -> bool {
        match Reach::from_address(address) {
            Reach::Never => self.link_local && is_link_local(address),
            Reach::Loopback => self.loopback,
            Reach::Private => self.private,
            Reach::Public => self.public,
        }
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inside.map_or_else(|| host.parse().map(IpAddr::V4).ok(), |host| host.parse().map(IpAddr::V6).ok())
}

/// Does not resolve names.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || literal(host).is_some_and(|address| Reach::from_address(address) == Reach::Loopback)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic fails the test")]

    use super::*;

    fn reach(text: &str) -> Reach {
        Reach::from_address(text.parse().unwrap())
    }

    #[test]
    fn i6_each_spelling_of_a_metadata_address_is_never_connected_to() {
        for text in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::",
            "2002:a9fe:a9fe:1::1",
            "2001:0:1:2:3:4:5601:5601",
            "::ffff:100.100.100.200",
        ] {
            assert_eq!(reach(text), Reach::Never, "{text}");
        }
    }

    #[test]
    fn i6_link_local_multicast_and_unspecified_are_never_connected_to() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.0.0",
            "169.254.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "ff00::",
            "::ffff:0.0.0.0",
            "2002:e000:1::",
        ] {
            assert_eq!(reach(text), Reach::Never, "{text}");
        }
    }

    #[test]
    fn i6_an_address_has_the_reach_of_its_network() {
        let loopback =
            ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"];
        for text in loopback {
            assert_eq!(reach(text), Reach::Loopback, "{text}");
        }
        for text in [
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.0",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
        ] {
            assert_eq!(reach(text), Reach::Private, "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
            "fbff::1",
            "2001:4860::8888",
        ] {
            assert_eq!(reach(text), Reach::Public, "{text}");
        }
    }

    #[test]
    fn i6_an_issuer_does_not_lead_to_a_less_public_place_than_itself() {
        let permits = |allowed: Allowed| {
            ["127.0.0.1", "10.0.0.1", "1.1.1.1", "169.254.169.254"].map(|text| allowed.permits(text.parse().unwrap()))
        };
        let by_issuer = |host, address: &str| permits(Allowed::by_issuer(host, &[address.parse().unwrap()]));
        assert_eq!(by_issuer("id.example.com", "1.1.1.1"), [false, false, true, false]);
        assert_eq!(by_issuer("id.internal", "10.0.0.7"), [false, true, true, false]);
        assert_eq!(by_issuer("10.0.0.7", "10.0.0.7"), [false, true, true, false]);
        // A name is loopback by its spelling, not by its address.
        assert_eq!(by_issuer("id.example.com", "127.0.0.1"), [false, false, true, false]);
        assert_eq!(by_issuer("localhost", "127.0.0.1"), [true, false, true, false]);
        assert_eq!(by_issuer("[::1]", "::1"), [true, false, true, false]);
        assert_eq!(permits(Allowed::by_operator()), [true, true, true, false]);
        assert_eq!(permits(Allowed::loopback()), [true, false, false, false]);
    }

    #[test]
    fn i6_link_local_alone_can_be_allowed_by_name() {
        let allowed = Allowed::by_operator().with_dangerous_link_local();
        for (text, expected) in [
            ("169.254.169.254", true),
            ("fe80::1", true),
            ("::ffff:169.254.169.254", false),
            ("fd00:ec2::254", false),
            ("168.63.129.16", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(allowed.permits(text.parse().unwrap()), expected, "{text}");
        }
    }
}
