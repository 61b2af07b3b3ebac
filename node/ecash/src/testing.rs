//! A mint for tests, in memory, and what a payer's wallet does.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr as _,
};

use cashu::{
    Amount, BlindSignature, BlindedMessage, CheckStateRequest, CheckStateResponse, CurrencyUnit,
    Id, KeySet, KeySetInfo, Keys, KeysResponse, KeysetResponse, MintUrl, Proof, ProofState,
    RestoreRequest, RestoreResponse, SecretKey, State, SwapRequest, SwapResponse, Token,
    dhke::{blind_message, construct_proofs, sign_message, verify_message},
    secret::Secret,
};

use crate::{Keysets, LockKey};

/// The values of a keyset: up to about a million.
const VALUES: u32 = 20;

/// A mint. Its keys follow from its seed.
#[derive(Clone, Debug)]
pub struct FakeMint {
    pub url: String,
    keys: BTreeMap<u64, SecretKey>,
    id: Id,
    fee_ppk: u64,
    pub active: bool,
    spent: BTreeSet<[u8; 33]>,
    issued: Vec<(BlindedMessage, BlindSignature)>,
}

/// A mint's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl FakeMint {
    pub fn new(url: &str, seed: u8, fee_ppk: u64) -> Self {
        let key = |power: u32| {
            let mut bytes = [seed; 32];
            bytes[0] = 1 + power as u8;
            SecretKey::from_slice(&bytes).expect("a key")
        };
        let keys: BTreeMap<u64, SecretKey> =
            (0..VALUES).map(|power| (1 << power, key(power))).collect();
        let public = keys.iter().map(|(value, key)| (Amount::from(*value), key.public_key()));
        let id = Id::v1_from_keys(&Keys::new(public.collect()));
        let url = MintUrl::from_str(url).expect("a URL").to_string();
        let (spent, issued) = Default::default();
        Self { url, keys, id, fee_ppk, active: true, spent, issued }
    }

    fn public_keys(&self) -> Keys {
        let public = |(value, key): (&u64, &SecretKey)| (Amount::from(*value), key.public_key());
        Keys::new(self.keys.iter().map(public).collect())
    }

    /// The answer to `GET /v1/keysets`.
    pub fn keysets(&self) -> Vec<u8> {
        let info = KeySetInfo {
            id: self.id,
            unit: CurrencyUnit::Sat,
            active: self.active,
            input_fee_ppk: self.fee_ppk,
            final_expiry: None,
        };
        serde_json::to_vec(&KeysetResponse { keysets: vec![info] }).expect("JSON")
    }

    /// The answer to `GET /v1/keys/{id}`.
    pub fn keys(&self) -> Vec<u8> {
        let keyset = KeySet {
            id: self.id,
            unit: CurrencyUnit::Sat,
            active: Some(self.active),
            keys: self.public_keys(),
            input_fee_ppk: self.fee_ppk,
            final_expiry: None,
        };
        serde_json::to_vec(&KeysResponse { keysets: vec![keyset] }).expect("JSON")
    }

    /// What a node knows of it.
    pub fn known(&self) -> Keysets {
        let mut keysets = Keysets::new("sat");
        assert_eq!(keysets.update(&self.keysets()).expect("good").len(), 1);
        keysets.add_keys(&self.keys()).expect("good");
        keysets
    }

    fn sign(&self, message: &BlindedMessage) -> Result<BlindSignature, Refused> {
        let value = message.amount.to_u64();
        let key = self.keys.get(&value).ok_or(Refused("no such value".into()))?;
        let c = sign_message(key, &message.blinded_secret).expect("signed");
        Ok(BlindSignature::new(message.amount, c, self.id, &message.blinded_secret, key)
            .expect("signed"))
    }

    /// Proofs of these values with these secrets, as a wallet has them after it paid.
    pub fn proofs(&self, secrets: &[(u64, String)]) -> Vec<Proof> {
        let (mut signatures, mut rs) = (Vec::new(), Vec::new());
        for (value, secret) in secrets {
            let (blinded, r) = blind_message(secret.as_bytes(), None).expect("blinded");
            let message = BlindedMessage::new(Amount::from(*value), self.id, blinded);
            signatures.push(self.sign(&message).expect("a value"));
            rs.push(r);
        }
        let secrets = secrets.iter().map(|(_, secret)| Secret::new(secret.clone())).collect();
        construct_proofs(signatures, rs, secrets, &self.public_keys()).expect("proofs")
    }

    /// A token of proofs.
    pub fn token_of(&self, proofs: Vec<Proof>) -> Token {
        Token::new(MintUrl::from_str(&self.url).expect("it"), proofs, None, CurrencyUnit::Sat)
    }

    /// A token of this amount, locked to a key.
    pub fn token(&self, amount: u64, lock: &str) -> String {
        let powers = (0..VALUES).filter(|power| amount >> power & 1 == 1);
        let secrets: Vec<_> = powers.map(|power| (1 << power, locked(lock, "[]"))).collect();
        self.token_of(self.proofs(&secrets)).to_string()
    }

    /// A token of this amount that anybody can spend, as another wallet sends it.
    pub fn open_token(&self, amount: u64) -> String {
        let powers = (0..VALUES).filter(|power| amount >> power & 1 == 1);
        let secrets: Vec<_> =
            powers.map(|power| (1 << power, Secret::generate().to_string())).collect();
        self.token_of(self.proofs(&secrets)).to_string()
    }

    /// The answer to `POST /v1/swap`.
    pub fn swap(&mut self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let request: SwapRequest = serde_json::from_slice(body).expect("a request");
        let mut points = BTreeSet::new();
        for proof in request.inputs() {
            let key = self.keys.get(&proof.amount.to_u64()).ok_or(Refused("no value".into()))?;
            verify_message(key, proof.c, proof.secret.as_bytes())
                .map_err(|_| Refused("not signed".into()))?;
            if proof.secret.to_string().starts_with('[') {
                proof.verify_p2pk().map_err(|error| Refused(error.to_string()))?;
            }
            let y = proof.y().expect("a point").to_bytes();
            if self.spent.contains(&y) || !points.insert(y) {
                return Err(Refused("token already spent".into()));
            }
        }
        let fee = (request.inputs().len() as u64 * self.fee_ppk).div_ceil(1000);
        let paid = request.input_amount().expect("a sum").to_u64();
        let asked = request.output_amount().expect("a sum").to_u64();
        if paid != asked + fee {
            return Err(Refused(format!("{paid} is not {asked} and {fee}")));
        }
        let signed = request.outputs().iter().map(|it| Ok((it.clone(), self.sign(it)?)));
        let signed: Vec<_> = signed.collect::<Result<_, Refused>>()?;
        self.spent.extend(points);
        let signatures = signed.iter().map(|(_, signature)| signature.clone()).collect();
        self.issued.extend(signed);
        Ok(serde_json::to_vec(&SwapResponse::new(signatures)).expect("JSON"))
    }

    /// The answer to `POST /v1/restore`.
    pub fn restore(&self, body: &[u8]) -> Vec<u8> {
        let request: RestoreRequest = serde_json::from_slice(body).expect("a request");
        let of = |asked: &BlindedMessage| {
            self.issued.iter().find(|(it, _)| it.blinded_secret == asked.blinded_secret).cloned()
        };
        let (outputs, signatures) = request.outputs.iter().filter_map(of).unzip();
        serde_json::to_vec(&RestoreResponse { outputs, signatures }).expect("JSON")
    }

    /// The answer to `POST /v1/checkstate`.
    pub fn check(&self, body: &[u8]) -> Vec<u8> {
        let request: CheckStateRequest = serde_json::from_slice(body).expect("a request");
        let states = request.ys.into_iter().map(|y| {
            let spent = self.spent.contains(&y.to_bytes());
            ProofState::from((y, if spent { State::Spent } else { State::Unspent }))
        });
        serde_json::to_vec(&CheckStateResponse { states: states.collect() }).expect("JSON")
    }

    /// Says that proofs were spent elsewhere.
    pub fn spend(&mut self, y: [u8; 33]) {
        self.spent.insert(y);
    }

    /// The sum of all that was signed in swaps.
    pub fn issued(&self) -> u64 {
        self.issued.iter().map(|(message, _)| message.amount.to_u64()).sum()
    }
}

/// A secret that is locked to a key, with these tags as JSON.
pub fn locked(lock: &str, tags: &str) -> String {
    let nonce = Secret::generate();
    format!(r#"["P2PK",{{"nonce":"{nonce}","data":"{lock}","tags":{tags}}}]"#)
}

/// A key for tests.
pub fn key(seed: u8) -> LockKey {
    LockKey::parse(&format!("{seed:02x}").repeat(32)).expect("a key")
}
