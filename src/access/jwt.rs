//! Whom does a signed JSON Web Token name?

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::config::JwtConfig;
use crate::domain::{Groups, Identity};
use crate::error::Error;

use super::{AccessError, check_names, invalid_credentials, role_of};

/// Shortest HS256 secret: as long as the hash it keys (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// How far clocks may be apart.
const LEEWAY_SECONDS: u64 = 30;

/// Checks tokens. Each kind of key takes its own algorithm only, whatever a token's header says.
pub(super) struct Verifier {
    config: JwtConfig,
    secret: Option<DecodingKey>,
    /// RS256 keys with their ids.
    keys: Vec<(Option<String>, DecodingKey)>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Verifier {
    pub(super) fn open(config: &JwtConfig) -> Result<Self, AccessError> {
        let secret = config.hs256_secret_file.as_deref().map(read_secret).transpose()?;
        let keys = config.jwks_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
        Ok(Self { config: config.clone(), secret, keys })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Identity, Error> {
        let refused = |error: jsonwebtoken::errors::Error| {
            // Told to operators only: who holds a wrong token learns nothing from it.
            tracing::info!(%error, "refused a token");
            invalid_credentials("this token is not valid here").caused_by(error)
        };
        let header = jsonwebtoken::decode_header(token).map_err(refused)?;
        let key = match header.alg {
            Algorithm::HS256 => self.secret.as_ref(),
            Algorithm::RS256 => self.key(header.kid.as_deref()),
            _ => None,
        };
        let key = key
            .ok_or_else(|| invalid_credentials("this token is signed with a key that is not trusted here"))?;
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, key, &self.validation(header.alg))
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                    invalid_credentials("this token has expired")
                }
                _ => refused(error),
            })?
            .claims;
        self.identity(&claims)
    }

    /// The key with this id; a token without an id is taken when there is one key only.
    fn key(&self, id: Option<&str>) -> Option<&DecodingKey> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|(kid, _)| kid.as_deref() == Some(id)).map(|(_, key)| key),
            (None, [(_, key)]) => Some(key),
            (None, _) => None,
        }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        match &self.config.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &self.config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn identity(&self, claims: &Map<String, Value>) -> Result<Identity, Error> {
        let JwtConfig { user_claim, groups_claim, operator_groups, curator_groups, .. } = &self.config;
        let user = claims.get(user_claim).and_then(Value::as_str);
        let user =
            user.ok_or_else(|| invalid_credentials(format!("this token has no text claim {user_claim}")))?;
        let groups = match claims.get(groups_claim) {
            None | Some(Value::Null) => Some(Groups::new()),
            Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            Some(_) => None,
        };
        let groups = groups.ok_or_else(|| {
            invalid_credentials(format!("this token's claim {groups_claim} is no list of names"))
        })?;
        check_names(user, &groups).map_err(|error| invalid_credentials(error.message))?;
        let role = role_of(&groups, operator_groups, curator_groups);
        Ok(Identity { user: user.to_owned(), groups, role, sees_everything: false })
    }
}

fn read_secret(path: &Path) -> Result<DecodingKey, AccessError> {
    const KEY: &str = "access.jwt.hs256_secret_file";
    let bytes = read(KEY, path)?;
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < MIN_SECRET_BYTES {
        let problem =
            format!("the secret has {} bytes; HS256 needs at least {MIN_SECRET_BYTES}", secret.len());
        return Err(AccessError::Key { key: KEY, path: path.to_owned(), problem });
    }
    Ok(DecodingKey::from_secret(secret))
}

fn read_keys(path: &Path) -> Result<Vec<(Option<String>, DecodingKey)>, AccessError> {
    const KEY: &str = "access.jwt.jwks_file";
    let unusable = |problem: String| AccessError::Key { key: KEY, path: path.to_owned(), problem };
    let set: JwkSet =
        serde_json::from_slice(&read(KEY, path)?).map_err(|error| unusable(error.to_string()))?;
    let is_rsa = |jwk: &&Jwk| matches!(jwk.algorithm, AlgorithmParameters::RSA(_));
    let keys = set.keys.iter().filter(is_rsa).map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).map_err(|error| unusable(error.to_string()))?;
        Ok((jwk.common.key_id.clone(), key))
    });
    let keys: Vec<_> = keys.collect::<Result<_, AccessError>>()?;
    if keys.is_empty() { Err(unusable("no RSA key in it".into())) } else { Ok(keys) }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, AccessError> {
    std::fs::read(path).map_err(|source| AccessError::KeyFile { key, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rsa::{pkcs1::EncodeRsaPrivateKey, traits::PublicKeyParts};
    use serde_json::json;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn verifier() -> Verifier {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, [SECRET, b"\n"].concat()).unwrap();
        Verifier::open(&JwtConfig {
            hs256_secret_file: Some(file),
            issuer: Some("login.example".into()),
            audience: Some("attune".into()),
            operator_groups: vec!["admins".into()],
            ..JwtConfig::default()
        })
        .unwrap()
    }

    fn claims() -> Value {
        let exp = crate::domain::now().seconds() + 600;
        json!({"sub": "ada", "groups": ["admins", "hr"], "iss": "login.example", "aud": "attune", "exp": exp})
    }

    fn signed(algorithm: Algorithm, claims: &Value, secret: &[u8]) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn a_good_token_names_person_groups_and_role() {
        let ada = verifier().verify(&signed(Algorithm::HS256, &claims(), SECRET)).unwrap();
        assert_eq!((ada.user.as_str(), ada.role, ada.sees_everything), ("ada", Role::Operator, false));
        assert_eq!(ada.groups, ["admins", "hr"].map(String::from).into());
    }

    #[test]
    fn every_required_claim_is_required() {
        for (claim, wrong) in [
            ("exp", json!(crate::domain::now().seconds() - 600)),
            ("iss", json!("elsewhere")),
            ("aud", json!("other")),
            ("sub", json!(7)),
            ("groups", json!("admins")),
            ("nbf", json!(crate::domain::now().seconds() + 600)),
        ] {
            let mut bad = claims();
            bad[claim] = wrong;
            assert!(verifier().verify(&signed(Algorithm::HS256, &bad, SECRET)).is_err(), "{claim}");
        }
        for claim in ["exp", "iss", "aud", "sub"] {
            let mut bad = claims();
            bad.as_object_mut().unwrap().remove(claim);
            assert!(verifier().verify(&signed(Algorithm::HS256, &bad, SECRET)).is_err(), "{claim}");
        }
    }

    #[test]
    fn only_the_pinned_algorithm_and_key_count() {
        let other_key = signed(Algorithm::HS256, &claims(), b"ffffffffffffffffffffffffffffffff");
        let other_algorithm = signed(Algorithm::HS512, &claims(), SECRET);
        // Header {"alg":"none","typ":"JWT"}, no signature.
        let payload = other_key.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        for token in [other_key.as_str(), &other_algorithm, &unsigned, "x", "", "a.b.c"] {
            assert!(verifier().verify(token).is_err(), "{token}");
        }
    }

    /// An identity provider's key pair: what signs, and the public key as its JWKS has it.
    fn key_pair(id: &str) -> (EncodingKey, Value) {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
        let number = |n: &rsa::BigUint| {
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, n.to_bytes_be())
        };
        let jwk = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": number(key.n()), "e": number(key.e())});
        let der = key.to_pkcs1_der().unwrap();
        (EncodingKey::from_rsa_der(der.as_bytes()), jwk)
    }

    #[test]
    fn a_token_signed_with_a_key_of_the_set_is_taken_and_no_other() {
        let [(old, old_public), (new, new_public), (foreign, _)] = ["old", "new", "foreign"].map(key_pair);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        std::fs::write(&file, json!({"keys": [old_public, new_public]}).to_string()).unwrap();
        let config = JwtConfig { jwks_file: Some(file), ..JwtConfig::default() };
        let verifier = Verifier::open(&config).unwrap();
        let token = |key: &EncodingKey, algorithm, id: Option<&str>| {
            let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
            encode(&header, &claims(), key).unwrap()
        };
        for (key, id) in [(&old, "old"), (&new, "new")] {
            let ada = verifier.verify(&token(key, Algorithm::RS256, Some(id))).unwrap();
            assert_eq!((ada.user.as_str(), ada.role), ("ada", Role::Employee), "{id}");
            assert_eq!(ada.groups, ["admins", "hr"].map(String::from).into());
        }
        let modulus = EncodingKey::from_secret(old_public["n"].as_str().unwrap().as_bytes());
        for (what, token) in [
            ("a key of nobody", token(&foreign, Algorithm::RS256, Some("old"))),
            ("a name of nobody", token(&foreign, Algorithm::RS256, Some("foreign"))),
            ("the other key's name", token(&old, Algorithm::RS256, Some("new"))),
            ("no name, but two keys", token(&old, Algorithm::RS256, None)),
            ("another RSA algorithm", token(&old, Algorithm::RS384, Some("old"))),
            ("the public key as a secret", token(&modulus, Algorithm::HS256, Some("old"))),
        ] {
            assert!(verifier.verify(&token).is_err(), "{what}");
        }
    }

    #[test]
    fn a_short_secret_and_a_set_without_rsa_keys_are_refused_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "short").unwrap();
        let error =
            Verifier::open(&JwtConfig { hs256_secret_file: Some(file.clone()), ..JwtConfig::default() });
        assert!(error.unwrap_err().to_string().contains("at least 32"));
        std::fs::write(&file, r#"{"keys":[]}"#).unwrap();
        let error = Verifier::open(&JwtConfig { jwks_file: Some(file), ..JwtConfig::default() });
        assert!(error.unwrap_err().to_string().contains("no RSA key"));
    }
}
