//! How is a person recognised, and what may a web page on another site do?

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, ServerConfig, check};

/// How a person is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Everybody is user `local` in the role operator. Only on loopback.
    Open,
    /// `Authorization: Bearer` with a token of `attune tokens create`.
    Tokens,
    /// Headers set by a proxy that has authenticated the person.
    Proxy,
    /// `Authorization: Bearer` with a signed JSON Web Token.
    Jwt,
}

/// Who may do what.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// `open`, `tokens`, `proxy` or `jwt`. Default `open`.
    pub mode: AccessMode,
    /// For mode `proxy`.
    pub proxy: ProxyConfig,
    /// For mode `jwt`.
    pub jwt: JwtConfig,
    /// For the widget on other sites.
    pub widget: WidgetConfig,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            mode: AccessMode::Open,
            proxy: ProxyConfig::default(),
            jwt: JwtConfig::default(),
            widget: WidgetConfig::default(),
        }
    }
}

/// Headers set by an authenticating proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Addresses (CIDR) the proxy connects from; the headers are ignored from anywhere else. Default none.
    pub trusted: Vec<ipnet::IpNet>,
    /// Header with the person's name. Default `x-forwarded-user`.
    pub user_header: String,
    /// Header with the groups, separated by commas. Default `x-forwarded-groups`.
    pub groups_header: String,
    /// Groups whose members are operators. Default none.
    pub operator_groups: Vec<String>,
    /// Groups whose members are curators. Default none.
    pub curator_groups: Vec<String>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            user_header: "x-forwarded-user".into(),
            groups_header: "x-forwarded-groups".into(),
            operator_groups: Vec::new(),
            curator_groups: Vec::new(),
        }
    }
}

/// Signed JSON Web Tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// File with the HS256 secret (its bytes without a trailing newline, at least 32). Default none.
    pub hs256_secret_file: Option<PathBuf>,
    /// JWKS file with RS256 public keys. Default none.
    pub jwks_file: Option<PathBuf>,
    /// Required `iss`. Default none.
    pub issuer: Option<String>,
    /// Required `aud`. Default none.
    pub audience: Option<String>,
    /// Claim with the person's name. Default `sub`.
    pub user_claim: String,
    /// Claim with the groups (a list of strings). Default `groups`.
    pub groups_claim: String,
    /// Groups whose members are operators. Default none.
    pub operator_groups: Vec<String>,
    /// Groups whose members are curators. Default none.
    pub curator_groups: Vec<String>,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            hs256_secret_file: None,
            jwks_file: None,
            issuer: None,
            audience: None,
            user_claim: "sub".into(),
            groups_claim: "groups".into(),
            operator_groups: Vec::new(),
            curator_groups: Vec::new(),
        }
    }
}

/// The widget on other sites.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WidgetConfig {
    /// Origins (`https://intranet.example`) whose pages may embed the widget. Default none: same origin only.
    pub origins: Vec<String>,
    /// Seconds a widget token is valid. Default 900.
    pub token_seconds: u64,
}

impl Default for WidgetConfig {
    fn default() -> Self {
        Self { origins: Vec::new(), token_seconds: 900 }
    }
}

impl AccessConfig {
    pub(super) fn validate(&self, server: &ServerConfig) -> Result<(), ConfigError> {
        let loopback = server.address()?.ip().is_loopback();
        check(loopback || self.mode != AccessMode::Open, "access.mode", || {
            format!(
                "`open` serves everybody as operator and is allowed on loopback only, but server.listen is {}; \
                 set access.mode to tokens, proxy or jwt",
                server.listen
            )
        })?;
        check(
            self.mode != AccessMode::Proxy || !self.proxy.trusted.is_empty(),
            "access.proxy.trusted",
            || "mode proxy needs the addresses the proxy connects from, such as [\"10.0.0.5/32\"]".into(),
        )?;
        let has_key = self.jwt.hs256_secret_file.is_some() || self.jwt.jwks_file.is_some();
        check(self.mode != AccessMode::Jwt || has_key, "access.jwt", || {
            "mode jwt needs hs256_secret_file or jwks_file".into()
        })?;
        for origin in &self.widget.origins {
            let ok = url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            check(ok, "access.widget.origins", || {
                format!("{origin:?} is no origin; write scheme://host[:port] without a path")
            })?;
        }
        Ok(())
    }
}
