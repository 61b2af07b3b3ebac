//! The keys and tokens of a NATS operator, as its tool `nsc` makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with one account for its fleet, and the one that each server needs for itself.
pub struct Operator {
    operator: KeyPair,
    system: KeyPair,
    fleet: KeyPair,
}

impl Operator {
    /// New keys.
    #[must_use]
    pub fn new() -> Self {
        let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
        Self { operator, system, fleet: KeyPair::new_account() }
    }

    /// The lines of a server's configuration by which it knows the operator and its accounts.
    ///
    /// # Errors
    /// If something cannot be signed.
    pub fn config(&self) -> Result<String> {
        let (system, fleet) = (self.system.public_key(), self.fleet.public_key());
        let any = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1 });
        // A stream belongs to an account, and none to the system's.
        let mut stored = any.clone();
        for key in ["mem_storage", "disk_storage", "streams", "consumer"] {
            stored[key] = json!(-1);
        }
        let account = |key: &str, limits: &Value| {
            let claims = json!({ "type": "account", "version": 2, "limits": limits });
            token(&self.operator, key, &claims)
        };
        let claims = json!({ "type": "operator", "version": 2, "system_account": system });
        let operator = token(&self.operator, &self.operator.public_key(), &claims)?;
        Ok(format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {system}: {}, {fleet}: {} }}\n",
            account(&system, &any)?,
            account(&fleet, &stored)?
        ))
    }

    /// The .creds file of a node: it may do what docs/payments.md says that a node needs.
    ///
    /// # Errors
    /// If something cannot be signed.
    pub fn node(&self, name: &str) -> Result<String> {
        self.credentials(&json!({
            "pub": { "allow": [format!("weir.{name}.usage"), "$JS.API.>"] },
            "sub": { "allow": [format!("weir.{name}.api"), "_INBOX.>"] },
            "resp": { "max": 1, "ttl": 120_000_000_000u64 },
        }))
    }

    /// The .creds file of somebody who may do everything.
    ///
    /// # Errors
    /// If something cannot be signed.
    pub fn payment_layer(&self) -> Result<String> {
        self.credentials(&json!({ "pub": {}, "sub": {} }))
    }

    fn credentials(&self, permissions: &Value) -> Result<String> {
        let user = KeyPair::new_user();
        let mut claims = permissions.clone();
        for (key, value) in [("subs", json!(-1)), ("data", json!(-1)), ("payload", json!(-1))] {
            claims[key] = value;
        }
        claims["type"] = json!("user");
        claims["version"] = json!(2);
        let token = token(&self.fleet, &user.public_key(), &claims)?;
        let seed = user.seed().map_err(|error| anyhow!("no seed: {error}"))?;
        Ok(format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ))
    }
}

impl Default for Operator {
    fn default() -> Self {
        Self::new()
    }
}

/// What one key says of another.
fn token(issuer: &KeyPair, subject: &str, claims: &Value) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let body = json!({ "jti": subject, "iat": now, "iss": issuer.public_key(), "name": subject,
        "sub": subject, "nats": claims });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&head), part(&body));
    let signature = issuer.sign(text.as_bytes()).map_err(|error| anyhow!("not signed: {error}"))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
