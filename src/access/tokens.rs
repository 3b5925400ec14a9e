//! How are access tokens made, listed, revoked and checked?

use sha2::{Digest, Sha256};

use crate::domain::{Groups, Identity, Millis, Role, now};
use crate::error::Error;
use crate::ledger::{Ledger, TokenRow};

use super::{check_names, invalid_credentials};

/// Marks a secret as one of ours, so that secret scanners and people recognise it.
const PREFIX: &str = "att-";

/// Whom a new token is for.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The person's name.
    pub user: String,
    /// The person's groups.
    pub groups: Groups,
    /// The person's role.
    pub role: Role,
    /// When it stops working, if ever.
    pub expires: Option<Millis>,
}

/// Makes a token. The secret is returned once and never again: the ledger keeps its SHA-256 only.
///
/// # Errors
/// When a name is malformed or the expiry has passed, or when the ledger can not write.
pub async fn create(ledger: &dyn Ledger, new: NewToken) -> Result<(TokenRow, String), Error> {
    check_names(&new.user, &new.groups)?;
    let created = now();
    if new.expires.is_some_and(|expires| expires <= created) {
        return Err(Error::invalid("expires", "this time has passed"));
    }
    let secret = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    let row = TokenRow {
        id: format!("tok-{}", hex::encode(rand::random::<[u8; 6]>())),
        user: new.user,
        groups: new.groups,
        role: new.role,
        created,
        expires: new.expires,
        revoked: None,
    };
    ledger.create_token(&row, &sha256(&secret)).await?;
    Ok((row, secret))
}

/// Revokes a token; it stops working with the next request.
///
/// # Errors
/// When no token has this id, or the ledger can not write.
pub async fn revoke(ledger: &dyn Ledger, id: &str) -> Result<(), Error> {
    if ledger.revoke_token(id, now()).await? {
        Ok(())
    } else {
        Err(Error::not_found(format!("token {id:?}")))
    }
}

/// The person a token stands for. The ledger is asked each time (a point query on a hash), so that a revocation, from
/// whichever process, holds at once. The comparison is of hashes of 256 random bits: its timing tells nothing.
pub(super) async fn verify(ledger: &dyn Ledger, secret: &str) -> Result<Identity, Error> {
    let known = match secret.starts_with(PREFIX) {
        true => ledger.token(&sha256(secret)).await?,
        false => None,
    };
    let row = known.ok_or_else(|| invalid_credentials("this token is not known"))?;
    if row.revoked.is_some() {
        return Err(invalid_credentials("this token was revoked"));
    }
    if row.expires.is_some_and(|expires| expires <= now()) {
        return Err(invalid_credentials("this token has expired"));
    }
    Ok(Identity { user: row.user, groups: row.groups, role: row.role, sees_everything: false })
}

fn sha256(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}
