//! How does a widget on another site's page prove whom it serves? A short-lived token, signed by this server.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::domain::{Groups, Identity, Millis, Role, now};
use crate::error::Error;
use crate::ledger::Ledger;

use super::{AccessError, Caller, Scope, invalid_credentials, site::Site};

/// Marks a bearer token as a widget's.
const PREFIX: &str = "attw-";
/// The name under which the ledger keeps the signing secret, shared by every server on one database.
const SECRET: &str = "widget-token";

/// Whom a widget token is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WidgetGrant {
    /// The person.
    pub user: String,
    /// The person's groups.
    pub groups: Groups,
    /// The only site whose pages may use it, such as `https://intranet.example`.
    pub origin: String,
}

/// A widget token.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct WidgetToken {
    /// Send it as `Authorization: Bearer`.
    pub token: String,
    /// When it stops working.
    pub expires: Millis,
    /// Seconds until then.
    pub expires_in: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(flatten)]
    grant: WidgetGrant,
    expires: Millis,
}

/// Signs and checks widget tokens.
pub(super) struct Signer {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

pub(super) fn is_widget_token(token: &str) -> bool {
    token.starts_with(PREFIX)
}

impl Signer {
    pub(super) async fn open(ledger: &dyn Ledger) -> Result<Self, AccessError> {
        let secret = ledger
            .secret(SECRET, || hex::encode(rand::random::<[u8; 32]>()))
            .await
            .map_err(AccessError::Secret)?;
        Ok(Self::with_secret(secret.as_bytes()))
    }

    fn with_secret(secret: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mac = Hmac::new_from_slice(secret).expect("any key length");
        Self { mac }
    }

    pub(super) fn mint(&self, grant: WidgetGrant, seconds: u64) -> WidgetToken {
        let expires = Millis(now().0.saturating_add_unsigned(seconds.saturating_mul(1000)));
        let claims = Claims { grant, expires };
        // Strings, a set of strings and a number always become JSON.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let signature = URL_SAFE_NO_PAD.encode(self.sign(&payload).finalize().into_bytes());
        WidgetToken { token: format!("{PREFIX}{payload}.{signature}"), expires, expires_in: seconds }
    }

    pub(super) fn verify(&self, token: &str, site: &Site<'_>) -> Result<Caller, Error> {
        let claims =
            self.claims(token).ok_or_else(|| invalid_credentials("this widget token is not genuine"))?;
        if claims.expires <= now() {
            return Err(invalid_credentials("this widget token has expired"));
        }
        if !site.is(&claims.grant.origin) {
            return Err(invalid_credentials("this widget token is for another site"));
        }
        let WidgetGrant { user, groups, .. } = claims.grant;
        let identity = Identity { user, groups, role: Role::Employee, sees_everything: false };
        Ok(Caller { identity, scope: Scope::Widget })
    }

    /// The claims, if the signature is right (compared in constant time).
    fn claims(&self, token: &str) -> Option<Claims> {
        let (payload, signature) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.sign(payload).verify_slice(&signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    fn sign(&self, payload: &str) -> Hmac<Sha256> {
        self.mac.clone().chain_update(payload.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site<'static> = Site::Foreign("https://intranet.example");

    fn grant() -> WidgetGrant {
        WidgetGrant {
            user: "ada".into(),
            groups: ["hr".to_owned()].into(),
            origin: "https://intranet.example".into(),
        }
    }

    #[test]
    fn a_token_serves_its_person_on_its_site_only() {
        let signer = Signer::with_secret(b"secret");
        let token = signer.mint(grant(), 60).token;
        let caller = signer.verify(&token, &SITE).unwrap();
        assert_eq!((caller.identity.user.as_str(), caller.identity.role), ("ada", Role::Employee));
        assert_eq!(caller.scope, Scope::Widget);
        assert!(signer.verify(&token, &Site::Foreign("https://other.example")).is_err());
        assert!(signer.verify(&token, &Site::Own(None)).is_err());
        assert!(signer.verify(&token, &Site::Own(Some("intranet.example"))).is_ok());
    }

    #[test]
    fn changed_foreign_and_expired_tokens_are_refused() {
        let signer = Signer::with_secret(b"secret");
        let token = signer.mint(grant(), 60).token;
        for at in [PREFIX.len() + 3, token.len() - 3] {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(signer.verify(&String::from_utf8(changed).unwrap(), &SITE).is_err(), "byte {at}");
        }
        assert!(Signer::with_secret(b"other").verify(&token, &SITE).is_err());
        assert!(signer.verify(&signer.mint(grant(), 0).token, &SITE).is_err());
        assert!(signer.verify("attw-x", &SITE).is_err());
    }
}
