//! Servers that take reports.
#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A server that takes reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub(crate) protocol: Protocol,
    pub(crate) url: String,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// The Breakpad/Crashpad multipart form.
    Crashpad,
    /// Backtrace's minidump submission.
    Backtrace,
}

impl Destination {
    /// A Breakpad or Crashpad collector, for example Socorro's Antenna.
    ///
    /// # Errors
    /// If `url` is not an https URL with a host.
    pub fn crashpad(url: &str) -> Result<Self> {
        Self::new(Protocol::Crashpad, url)
    }

    /// Backtrace: `https://submit.backtrace.io/<universe>/<token>/minidump`, or a listener on premise.
    ///
    /// # Errors
    /// If `url` is not an https URL with a host.
    pub fn backtrace(url: &str) -> Result<Self> {
        Self::new(Protocol::Backtrace, url)
    }

    /// From `KIND=URL`, as the command line takes it.
    ///
    /// # Errors
    /// If the kind is not known or the URL cannot be used.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some(("crashpad", url)) => Self::crashpad(url),
            Some(("backtrace", url)) => Self::backtrace(url),
            _ => Err(Error::InvalidConfig {
                field: "destination",
                reason: "expected crashpad=URL or backtrace=URL".to_owned(),
            }),
        }
    }

    fn new(protocol: Protocol, url: &str) -> Result<Self> {
        let refuse =
            |reason: &str| Err(Error::InvalidConfig { field: "destination", reason: reason.to_owned() });
        if url.starts_with("http://") {
            return refuse("plain http would send reports in the clear; use https");
        }
        let Some(rest) = url.strip_prefix("https://") else {
            return refuse("expected a URL that starts with https://");
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() || authority.starts_with(':') {
            return refuse("the URL has no host");
        }
        if authority.contains('@') {
            return refuse("user info in a URL ends up in logs; put the token into the path or query");
        }
        if !is_authority(authority) {
            return refuse("the URL's host or port cannot be read; an IPv6 address stands in brackets");
        }
        if url.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return refuse("the URL holds white space or control characters");
        }
        Ok(Self { protocol, url: url.to_owned() })
    }

    /// What the server speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The TCP port of the server.
    #[cfg_attr(not(feature = "upload"), expect(dead_code, reason = "only the uploader asks"))]
    pub(crate) fn port(&self) -> u16 {
        const HTTPS: u16 = 443;
        let rest = self.url.strip_prefix("https://").unwrap_or_default();
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
        // An IPv6 address has colons of its own, in brackets.
        let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
        behind.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(HTTPS)
    }

    /// The URL. It may hold a submission token: do not log it.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT` (RFC 3986, section 3.2). Whether a host of that name exists is not asked.
fn is_authority(authority: &str) -> bool {
    let (is_host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
            None => return false,
        },
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, rest) = authority.split_at(end);
            (!host.contains(['[', ']', '%', '<', '>', '\\', '^', '|']), rest)
        }
    };
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    is_host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_be_sent_to_are_refused() {
        let good = [
            "https://crashes.example.org/submit?token=1",
            "https://crashes.example.org:8443",
            "https://127.0.0.1:80/",
            "https://[::1]:443/submit",
            "https://[2001:db8::7]",
            "https://crashes.example.org:",
            "https://bücher.example/a",
        ];
        for url in good {
            assert!(Destination::crashpad(url).is_ok(), "{url}");
        }
        let bad = [
            ("http://crashes.example.org", "plain http"),
            ("crashes.example.org", "starts with https://"),
            ("https://", "no host"),
            ("https:///submit", "no host"),
            ("https://:443/", "no host"),
            ("https://user:word@crashes.example.org/", "user info"),
            ("https://[::bad/", "host or port"),
            ("https://[::1/submit", "host or port"),
            ("https://[::1]443/", "host or port"),
            ("https://[name]/", "host or port"),
            ("https://a]b/", "host or port"),
            ("https://a:b/", "host or port"),
            ("https://a:65536/", "host or port"),
            ("https://a:1:2/", "host or port"),
            ("https://a/b c", "white space"),
        ];
        for (url, reason) in bad {
            let error = Destination::crashpad(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn ports() {
        for (url, port) in [
            ("https://a.example/x:1", 443),
            ("https://a.example:8443/x", 8443),
            ("https://[::1]/x", 443),
            ("https://[::1]:9/x", 9),
            ("https://a.example:8443?x", 8443),
            ("https://a.example:", 443),
        ] {
            assert_eq!(Destination::crashpad(url).unwrap().port(), port, "{url}");
        }
    }
}
