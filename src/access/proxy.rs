//! Whom does the authenticating proxy in front of the server name?

use std::net::IpAddr;

use crate::config::ProxyConfig;
use crate::domain::{Groups, Identity};
use crate::error::Error;

use super::{Credentials, check_names, invalid_credentials, role_of};

/// Whether the connection comes from the proxy.
pub(super) fn is_trusted(config: &ProxyConfig, peer: Option<IpAddr>) -> bool {
    peer.is_some_and(|peer| config.trusted.iter().any(|net| net.contains(&peer.to_canonical())))
}

/// The person the proxy's headers name; believed only when the connection comes from the proxy.
pub(super) fn identify(config: &ProxyConfig, credentials: &Credentials<'_>) -> Result<Identity, Error> {
    if !is_trusted(config, credentials.peer) {
        return Err(invalid_credentials(
            "this server is used through its proxy; connections from this address are not trusted",
        ));
    }
    let user = text(&config.user_header, credentials.proxy_user)?
        .map(str::trim)
        .ok_or_else(|| invalid_credentials(format!("the proxy sent no {} header", config.user_header)))?;
    let groups: Groups = text(&config.groups_header, credentials.proxy_groups)?
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
        .collect();
    check_names(user, &groups).map_err(|error| invalid_credentials(error.message))?;
    let role = role_of(&groups, &config.operator_groups, &config.curator_groups);
    Ok(Identity { user: user.to_owned(), groups, role, sees_everything: false })
}

/// A header's text. One that can not be read is an error: without its groups a person would silently lose what they are
/// allowed.
fn text<'h>(name: &str, value: Option<&'h [u8]>) -> Result<Option<&'h str>, Error> {
    let unreadable = |_| invalid_credentials(format!("the proxy's {name} header is not UTF-8"));
    value.map(std::str::from_utf8).transpose().map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;
    use crate::error::ErrorCode;

    fn config() -> ProxyConfig {
        ProxyConfig {
            trusted: vec!["10.0.0.0/24".parse().unwrap()],
            curator_groups: vec!["writers".into()],
            ..ProxyConfig::default()
        }
    }

    fn from<'a>(peer: &str, user: Option<&'a str>) -> Credentials<'a> {
        Credentials {
            peer: Some(peer.parse().unwrap()),
            proxy_user: user.map(str::as_bytes),
            proxy_groups: Some(b"writers, hr,,"),
            ..Credentials::default()
        }
    }

    #[test]
    fn headers_are_believed_from_the_proxy() {
        let ada = identify(&config(), &from("10.0.0.7", Some("ada"))).unwrap();
        assert_eq!((ada.user.as_str(), ada.role), ("ada", Role::Curator));
        assert_eq!(ada.groups, ["hr", "writers"].map(String::from).into());
        // A dual-stack listener reports IPv4 peers as mapped addresses.
        assert!(identify(&config(), &from("::ffff:10.0.0.7", Some("ada"))).is_ok());
    }

    #[test]
    fn names_in_any_script_are_read_and_what_is_no_text_is_an_error() {
        let groups = "hr,Geschäftsführung,writers";
        let zoe = Credentials { proxy_groups: Some(groups.as_bytes()), ..from("10.0.0.7", Some("zoë")) };
        let found = identify(&config(), &zoe).unwrap();
        assert_eq!((found.user.as_str(), found.role, found.groups.len()), ("zoë", Role::Curator, 3));
        let latin1 = Credentials { proxy_groups: Some(b"hr,Gesch\xe4ft"), ..from("10.0.0.7", Some("ada")) };
        let error = identify(&config(), &latin1).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidCredentials);
        assert!(error.message.contains(&config().groups_header), "{}", error.message);
    }

    #[test]
    fn headers_from_anywhere_else_are_not_believed() {
        for credentials in [from("10.0.1.7", Some("ada")), from("10.0.0.7", None), from("10.0.0.7", Some(""))]
        {
            let error = identify(&config(), &credentials).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidCredentials);
        }
    }
}
