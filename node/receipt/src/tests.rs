use proptest::prelude::*;

use super::*;

fn receipt() -> Receipt {
    Receipt {
        version: VERSION,
        session: "5f0c1d2e3a4b5c6d".into(),
        consumer: Some("alice".into()),
        public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".into(),
        sequence: 7,
        bytes_up: 1536,
        packets_up: 2,
        bytes_down: 5_368_709_120,
        packets_down: 4_000_000,
        seconds: 420,
        start: 1_700_000_000,
        last_activity: 1_700_000_400,
        end_reason: None,
        signer: String::new(),
        signature: String::new(),
    }
}

fn signed() -> (Receipt, Signer) {
    let signer = Signer::from_seed(&[7; 32]);
    (signer.sign(receipt()), signer)
}

#[test]
fn the_text_is_the_documented_one() {
    let (receipt, _) = signed();
    let documented = include_str!("../../../docs/payments.md");
    let start = documented.find("weir usage 1\n").expect("the text is in the document");
    let text = receipt.signed_text();
    let without_key = text.split("signer=").next().expect("a text");
    assert!(documented[start..].starts_with(without_key), "{text}");
}

#[test]
fn what_a_node_has_signed_verifies_with_its_key_alone() {
    let (receipt, signer) = signed();
    assert_eq!(receipt.verify(signer.public()), Ok(()));
    assert!(is_signer(signer.public()) && !is_signer("") && !is_signer("AAAA"));
    let other = Signer::from_seed(&[8; 32]);
    assert_eq!(receipt.verify(other.public()), Err(NotSigned::Signer));
    // A key of its own beside a text that the other one has signed.
    let forged = Receipt { signer: other.public().into(), ..receipt };
    assert_eq!(forged.verify(other.public()), Err(NotSigned::Signature));
    assert_eq!(forged.verify(signer.public()), Err(NotSigned::Signer));
}

#[test]
fn texts_that_could_hide_a_line_are_refused_even_if_signed() {
    let signer = Signer::from_seed(&[7; 32]);
    for consumer in ["", "a\nb", "a\rb", &"x".repeat(MAX_TEXT + 1)] {
        let signed = signer.sign(Receipt { consumer: Some(consumer.into()), ..receipt() });
        assert_eq!(signed.verify(signer.public()), Err(NotSigned::Text), "{consumer:?}");
    }
    let next = signer.sign(Receipt { version: 2, ..receipt() });
    assert_eq!(next.verify(signer.public()), Err(NotSigned::Version));
}

#[test]
fn a_number_that_falls_is_named() {
    let earlier = receipt();
    let later = Receipt { sequence: 8, bytes_up: 2000, ..receipt() };
    assert_eq!(later.falls_behind(&earlier), None);
    assert_eq!(earlier.falls_behind(&later), Some(("sequence", 8, 7)));
    let less = Receipt { sequence: 9, bytes_up: 1999, ..receipt() };
    assert_eq!(less.falls_behind(&later), Some(("bytes_up", 2000, 1999)));
    assert_eq!(Receipt { bytes_up: u64::MAX, ..receipt() }.billed(), u64::MAX);
}

proptest! {
    #[test]
    fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (receipt, signer) = signed();
        let mut json = serde_json::to_vec(&receipt).expect("JSON");
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(changed) = serde_json::from_slice::<Receipt>(&json) {
            // Spaces and the name of a field that is null are no part of what it says.
            prop_assert!(changed == receipt || changed.verify(signer.public()).is_err());
        }
    }

    #[test]
    fn any_changed_number_is_refused(field in 0..8usize, value in any::<u64>()) {
        let (receipt, signer) = signed();
        let mut changed = receipt.clone();
        let field = match field {
            0 => &mut changed.sequence,
            1 => &mut changed.bytes_up,
            2 => &mut changed.packets_up,
            3 => &mut changed.bytes_down,
            4 => &mut changed.packets_down,
            5 => &mut changed.seconds,
            6 => &mut changed.start,
            _ => &mut changed.last_activity,
        };
        *field = value;
        prop_assert!(changed == receipt || changed.verify(signer.public()).is_err());
    }

    #[test]
    fn whatever_is_signed_verifies_or_is_refused_for_its_text(
        consumer in proptest::option::of(".{0,20}"),
        session in "[ -~]{0,20}",
    ) {
        let signer = Signer::from_seed(&[9; 32]);
        let signed = signer.sign(Receipt { consumer, session, ..receipt() });
        prop_assert!(matches!(signed.verify(signer.public()), Ok(()) | Err(NotSigned::Text)));
    }
}
