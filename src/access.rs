//! Who asks, and what may they do? Established once per request, in the configured mode.

mod jwt;
mod proxy;
mod site;
pub mod tokens;
mod widget;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{AccessConfig, AccessMode};
use crate::domain::{Groups, Identity, Role};
use crate::error::{Error, ErrorCode};
use crate::ledger::{Ledger, LedgerError};

pub use widget::{WidgetGrant, WidgetToken};

/// The person of mode `open`.
const LOCAL_USER: &str = "local";
/// Longest name of a person or group: names are stored with every answer and shown in lists.
const MAX_NAME_CHARS: usize = 200;

/// Why access could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A key file can not be read.
    #[error("{key}: {path}")]
    KeyFile {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key file's content can not be used.
    #[error("{key}: {path}: {problem}")]
    Key {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The secret that signs widget tokens can not be kept.
    #[error("the secret that signs widget tokens")]
    Secret(#[source] LedgerError),
}

impl From<AccessError> for Error {
    fn from(error: AccessError) -> Self {
        Self::internal(error)
    }
}

/// What a request says about who sends it, before any of it is believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The header that `access.proxy.user_header` names.
    pub proxy_user: Option<&'a [u8]>,
    /// The header that `access.proxy.groups_header` names.
    pub proxy_groups: Option<&'a [u8]>,
    /// The `X-Forwarded-Host` header.
    pub forwarded_host: Option<&'a str>,
    /// The `Host` header.
    pub host: Option<&'a str>,
    /// The `Origin` header: which page sends the request, when a page does.
    pub origin: Option<&'a str>,
    /// The address the connection comes from.
    pub peer: Option<IpAddr>,
    /// Whether the request may change something (its method is not GET, HEAD or OPTIONS).
    pub changes_state: bool,
}

/// How far a request's rights reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Whatever the person's role may do.
    Full,
    /// What the widget needs: chat, compare, give feedback, open a citation. A page of another site never gets more,
    /// whoever is behind it.
    Widget,
}

/// A recognised person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// How far the request's rights reach.
    pub scope: Scope,
}

/// The configured way of recognising people.
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    ledger: Arc<dyn Ledger>,
    jwt: Option<jwt::Verifier>,
    widget: widget::Signer,
}

impl Access {
    /// Reads the keys the mode needs.
    ///
    /// # Errors
    /// When a key file is missing or unusable, or the ledger can not keep the secret that signs widget tokens.
    pub async fn open(config: &AccessConfig, ledger: Arc<dyn Ledger>) -> Result<Self, AccessError> {
        let jwt = match config.mode {
            AccessMode::Jwt => Some(jwt::Verifier::open(&config.jwt)?),
            AccessMode::Open | AccessMode::Tokens | AccessMode::Proxy => None,
        };
        let widget = widget::Signer::open(ledger.as_ref()).await?;
        Ok(Self { config: config.clone(), ledger, jwt, widget })
    }

    /// Recognises who sends a request.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCredentials`] when the mode's credentials are missing, wrong or expired;
    /// [`ErrorCode::Forbidden`] when a page of a site that is not allowed sends the request, or, in mode `open`, when
    /// the request does not address this machine by a loopback name.
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Caller, Error> {
        let site = site::of(credentials, &self.config)?;
        let bearer = credentials.authorization.and_then(bearer);
        let caller = match bearer {
            Some(token) if widget::is_widget_token(token) => self.widget.verify(token, &site)?,
            _ => Caller { identity: self.identify(credentials, bearer).await?, scope: Scope::Full },
        };
        Ok(if site.is_foreign() { caller.into_widget_scope() } else { caller })
    }

    /// Makes a token for the widget on another site's pages, bound to a person and that site.
    ///
    /// # Errors
    /// When a name or the origin is malformed, or the origin is not in `access.widget.origins`.
    pub fn widget_token(&self, grant: WidgetGrant) -> Result<WidgetToken, Error> {
        if !self.config.widget.origins.contains(&grant.origin) {
            return Err(Error::invalid("origin", "this origin is not in access.widget.origins"));
        }
        check_names(&grant.user, &grant.groups)?;
        Ok(self.widget.mint(grant, self.config.widget.token_seconds))
    }

    async fn identify(&self, credentials: &Credentials<'_>, bearer: Option<&str>) -> Result<Identity, Error> {
        match (self.config.mode, &self.jwt) {
            (AccessMode::Open, _) => Ok(local()),
            (AccessMode::Tokens, _) => tokens::verify(self.ledger.as_ref(), required(bearer)?).await,
            (AccessMode::Proxy, _) => proxy::identify(&self.config.proxy, credentials),
            (AccessMode::Jwt, Some(verifier)) => verifier.verify(required(bearer)?),
            (AccessMode::Jwt, None) => {
                Err(invalid_credentials("this server has no key to check tokens with"))
            }
        }
    }
}

impl Caller {
    fn into_widget_scope(mut self) -> Self {
        self.identity.role = Role::Employee;
        self.scope = Scope::Widget;
        self
    }
}

fn local() -> Identity {
    Identity { user: LOCAL_USER.into(), groups: Groups::new(), role: Role::Operator, sees_everything: true }
}

/// The token of an `Authorization: Bearer` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn required(bearer: Option<&str>) -> Result<&str, Error> {
    bearer.ok_or_else(|| {
        invalid_credentials("this server needs a token: send it as Authorization: Bearer TOKEN")
    })
}

fn invalid_credentials(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidCredentials, message)
}

/// The highest role that membership in `groups` gives.
fn role_of(groups: &Groups, operator_groups: &[String], curator_groups: &[String]) -> Role {
    if operator_groups.iter().any(|group| groups.contains(group)) {
        Role::Operator
    } else if curator_groups.iter().any(|group| groups.contains(group)) {
        Role::Curator
    } else {
        Role::Employee
    }
}

/// Names are stored, logged by id and compared; a group's name also travels in comma-separated headers.
fn check_names(user: &str, groups: &Groups) -> Result<(), Error> {
    let plain = |name: &str| {
        !name.trim().is_empty()
            && name.chars().count() <= MAX_NAME_CHARS
            && !name.chars().any(char::is_control)
    };
    if !plain(user) {
        return Err(Error::invalid(
            "user",
            "a person's name has 1 to 200 characters, none of them control characters",
        ));
    }
    if !groups.iter().all(|group| plain(group) && !group.contains(',')) {
        return Err(Error::invalid(
            "groups",
            "a group's name has 1 to 200 characters, none of them commas or control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_scheme_is_case_insensitive() {
        assert_eq!(bearer("Bearer att-1"), Some("att-1"));
        assert_eq!(bearer("bearer  att-1 "), Some("att-1"));
        assert_eq!(bearer("Basic att-1"), None);
        assert_eq!(bearer("att-1"), None);
    }

    #[test]
    fn the_highest_role_of_the_groups_wins() {
        let groups: Groups = ["writers", "admins"].map(String::from).into();
        let (admins, writers) = (["admins".to_owned()], ["writers".to_owned()]);
        assert_eq!(role_of(&groups, &admins, &writers), Role::Operator);
        assert_eq!(role_of(&groups, &[], &writers), Role::Curator);
        assert_eq!(role_of(&groups, &[], &[]), Role::Employee);
    }

    #[test]
    fn names_that_could_not_travel_are_refused() {
        assert!(check_names("ada", &["hr".to_owned()].into()).is_ok());
        assert!(check_names(" ", &Groups::new()).is_err());
        assert!(check_names("a\nb", &Groups::new()).is_err());
        assert!(check_names("ada", &["a,b".to_owned()].into()).is_err());
        assert!(check_names(&"x".repeat(201), &Groups::new()).is_err());
    }
}
