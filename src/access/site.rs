//! Which site's page sends a request, and may it?

use std::net::IpAddr;

use crate::config::{AccessConfig, AccessMode};
use crate::error::{Error, ErrorCode};

use super::{Credentials, proxy};

/// Where a request comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Site<'a> {
    /// A page of this server, or no page at all; with the host it addresses.
    Own(Option<&'a str>),
    /// A page of an allowed other site, by its origin.
    Foreign(&'a str),
}

impl Site<'_> {
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign(_))
    }

    /// Whether this is the site with the given origin.
    pub(super) fn is(&self, origin: &str) -> bool {
        match self {
            Self::Foreign(own) => *own == origin,
            Self::Own(host) => host.is_some_and(|host| authority(origin) == Some(host)),
        }
    }
}

/// The site of a request.
///
/// # Errors
/// [`ErrorCode::Forbidden`] for pages of sites that are not allowed, and in mode `open` for requests that do not
/// address a loopback name: a page can make a browser resolve its own name to 127.0.0.1 (DNS rebinding), and then
/// counts as same origin; only the name betrays it.
pub(super) fn of<'a>(credentials: &Credentials<'a>, config: &AccessConfig) -> Result<Site<'a>, Error> {
    let host = public_host(credentials, config);
    if config.mode == AccessMode::Open && host.is_some_and(|host| !is_loopback(host)) {
        return Err(Error::new(
            ErrorCode::Forbidden,
            "without access control this server answers to loopback names such as localhost only",
        ));
    }
    match credentials.origin {
        None => Ok(Site::Own(host)),
        Some(origin) if host.is_some() && authority(origin) == host => Ok(Site::Own(host)),
        Some(origin) if config.widget.origins.iter().any(|allowed| allowed == origin) => {
            Ok(Site::Foreign(origin))
        }
        // A browser keeps the answer to a mere read from the page (no CORS headers), but nothing may change.
        Some(_) if !credentials.changes_state && config.mode != AccessMode::Open => Ok(Site::Own(host)),
        Some(_) => Err(Error::new(
            ErrorCode::Forbidden,
            "pages of this origin may not use this server; add it to access.widget.origins",
        )),
    }
}

/// The host people address: what a trusted proxy says, else the `Host` header.
fn public_host<'a>(credentials: &Credentials<'a>, config: &AccessConfig) -> Option<&'a str> {
    let forwarded = credentials
        .forwarded_host
        .filter(|_| config.mode == AccessMode::Proxy && proxy::is_trusted(&config.proxy, credentials.peer));
    forwarded.or(credentials.host)
}

/// `host[:port]` of an origin.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

fn is_loopback(host: &str) -> bool {
    let name = host
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or_else(|| host.rsplit_once(':').map_or(host, |(name, _)| name), |(address, _)| address);
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(host: &'a str, origin: Option<&'a str>) -> Credentials<'a> {
        Credentials { host: Some(host), origin, changes_state: true, ..Credentials::default() }
    }

    fn config(mode: AccessMode) -> AccessConfig {
        let mut config = AccessConfig { mode, ..AccessConfig::default() };
        config.widget.origins = vec!["https://intranet.example".into()];
        config
    }

    #[test]
    fn own_pages_allowed_sites_and_programs_pass_and_other_sites_do_not() {
        let config = config(AccessMode::Tokens);
        let site = |origin| of(&request("chat.example:8080", origin), &config).map_err(|e| e.code);
        assert_eq!(site(None), Ok(Site::Own(Some("chat.example:8080"))));
        assert_eq!(site(Some("https://chat.example:8080")), Ok(Site::Own(Some("chat.example:8080"))));
        assert_eq!(site(Some("https://intranet.example")), Ok(Site::Foreign("https://intranet.example")));
        for foreign in
            ["https://evil.example", "null", "https://chat.example", "https://intranet.example.evil.example"]
        {
            assert_eq!(site(Some(foreign)), Err(ErrorCode::Forbidden), "{foreign}");
        }
    }

    #[test]
    fn open_mode_answers_to_loopback_names_only() {
        let config = config(AccessMode::Open);
        for host in
            ["localhost:8080", "127.0.0.1", "127.8.9.1:80", "[::1]:8080", "attune.localhost", "LOCALHOST"]
        {
            assert!(of(&request(host, None), &config).is_ok(), "{host}");
        }
        for host in ["rebound.example:8080", "10.0.0.1", "localhost.example", "[2001:db8::1]:80", ""] {
            assert!(of(&request(host, None), &config).is_err(), "{host}");
        }
    }

    #[test]
    fn the_forwarded_host_counts_from_a_trusted_proxy_only() {
        let mut config = config(AccessMode::Proxy);
        config.proxy.trusted = vec!["10.0.0.5/32".parse().unwrap()];
        let mut credentials = request("inner:8080", Some("https://chat.example"));
        credentials.forwarded_host = Some("chat.example");
        credentials.peer = Some("10.0.0.5".parse().unwrap());
        assert!(of(&credentials, &config).is_ok());
        credentials.peer = Some("10.0.0.6".parse().unwrap());
        assert!(of(&credentials, &config).is_err());
    }
}
