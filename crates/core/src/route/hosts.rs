//! The hosts that a gate serves (requirement T23).
//!
//! Other values of `Host` are not forwarded, because an upstream may put the host into password-reset links.

use std::net::{IpAddr, Ipv6Addr};

use super::authority::is_host;

/// The error for an invalid host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host; expected a name without a port, such as \"example.com\", \"*.example.com\" or \"*\"")]
pub struct HostError(String);

/// The served hosts: names, all names below a domain, or any host.
///
/// ```
/// use rotogate_core::route::Hosts;
///
/// let mut hosts = Hosts::default();
/// hosts.add("*.example.com")?;
/// assert!(hosts.admit("api.example.com") && !hosts.admit("example.com"));
/// # Ok::<(), rotogate_core::route::HostError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    any: bool,
    /// The names are in lower case, without a trailing dot.
    exact: Vec<Box<str>>,
    below: Vec<Box<str>>,
}

impl Hosts {
    /// Adds a host: `example.com`, an address, `*.example.com`, or `*` for any host.
    ///
    /// # Errors
    /// The string has another form.
    pub fn add(&mut self, host: &str) -> Result<(), HostError> {
        let normal = normal(host);
        let below = normal.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        if host == "*" {
            self.any = true;
        } else if let Some(below) = below.filter(|rest| rest.get(1..).is_some_and(is_host)) {
            self.below.push(below.into());
        } else if is_host(&normal) {
            self.exact.push(normal.into());
        } else {
            return Err(HostError(host.to_owned()));
        }
        Ok(())
    }

    /// Whether this host, without a port, is served.
    pub fn admit(&self, host: &str) -> bool {
        // Compare the host as it was sent first, because most clients send the normal spelling.
        if self.any || self.exact.iter().any(|known| **known == *host) {
            return true;
        }
        let host = normal(host);
        self.exact.iter().any(|known| **known == *host) || self.below.iter().any(|end| host.ends_with(&**end))
    }
}

fn normal(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether this host, without a port, is the local machine.
pub fn is_loopback(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok_and(|address| address.to_canonical().is_loopback());
    }
    let host = normal(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t23_a_host_is_served_by_its_name_below_its_domain_or_because_any_is() {
        let mut hosts = Hosts::default();
        for host in ["Api.Example.com", "*.apps.example.com", "192.0.2.7", "[2001:db8::1]"] {
            hosts.add(host).unwrap();
        }
        for host in ["api.example.com", "API.example.COM", "api.example.com.", "192.0.2.7", "[2001:DB8::1]"] {
            assert!(hosts.admit(host), "{host}");
        }
        assert!(hosts.admit("a.apps.example.com") && hosts.admit("a.b.Apps.example.com."));
        for host in ["example.com", "apps.example.com", "xapps.example.com", "api.example.com.evil.test", "evil.test"] {
            assert!(!hosts.admit(host), "{host}");
        }
        for bad in ["", "*.", "*.*.com", "a.*", "a:80", "a b", "*x.com", "http://a", "[::1", "*."] {
            assert!(hosts.add(bad).is_err(), "{bad}");
        }
        hosts.add("*").unwrap();
        assert!(hosts.admit("evil.test"));
    }

    #[test]
    fn t23_a_loopback_host_names_this_machine() {
        for host in ["localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.test", "evil-localhost", "128.0.0.1", "127.0.0.1.evil.test", "[::2]", "[]", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
