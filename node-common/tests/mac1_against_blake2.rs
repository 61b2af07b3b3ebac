//! BLAKE2s and mac1 beside the `blake2` crate.

use blake2::{
    Blake2s256, Blake2sMac, Blake2sMac256, Digest as _,
    digest::{Mac as _, consts::U16},
};
use proptest::{collection::vec, prelude::*};
use weir_common::{
    blake2s,
    mac1::{Mac1Key, Mac1Keys},
};

fn mac1(public_key: &[u8; 32], covered: &[u8]) -> [u8; 16] {
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(public_key).finalize();
    let mac = Blake2sMac::<U16>::new_from_slice(&key).expect("a key of 32 bytes");
    mac.chain_update(covered).finalize().into_bytes().into()
}

proptest! {
    #[test]
    fn digests_are_those_of_the_crate(message in vec(any::<u8>(), 0..400)) {
        let expected: [u8; 32] = Blake2s256::digest(&message).into();
        prop_assert_eq!(blake2s::digest(32, b"", &message), expected);
    }

    #[test]
    fn keyed_digests_are_those_of_the_crate(
        key in any::<[u8; 32]>(),
        message in vec(any::<u8>(), 0..400),
    ) {
        let mac = Blake2sMac256::new_from_slice(&key).expect("a key of 32 bytes");
        let expected: [u8; 32] = mac.chain_update(&message).finalize().into_bytes().into();
        prop_assert_eq!(blake2s::digest(32, &key, &message), expected);
    }

    #[test]
    fn a_mac_fits_its_key_and_one_flipped_bit_does_not(
        public_key in any::<[u8; 32]>(),
        other in any::<[u8; 32]>(),
        initiation in any::<bool>(),
        content in vec(any::<u8>(), 148),
        before in 0usize..40,
        flip in any::<prop::sample::Index>(),
    ) {
        let len = if initiation { 148 } else { 92 };
        let mut message = content[..len].to_vec();
        let key = Mac1Key::new(&public_key);
        let mac = mac1(&public_key, &message[..len - 32]);
        prop_assert_eq!(key.mac(&message), mac);
        message[len - 32..len - 16].copy_from_slice(&mac);
        let fits = |message: &[u8], keys: Mac1Keys| {
            let frame = [&vec![0; before][..], message].concat();
            if initiation {
                keys.fit_initiation(frame.as_slice(), before)
            } else {
                keys.fit_response(frame.as_slice(), before)
            }
        };
        let other = Mac1Key::new(&other);
        prop_assert!(fits(&message, Mac1Keys::one(key)));
        prop_assert!(fits(&message, Mac1Keys::both(key, other)));
        prop_assert!(fits(&message, Mac1Keys::both(other, key)));
        prop_assert!(!fits(&message, Mac1Keys::one(other)));
        prop_assert!(!fits(&message[..len - 17], Mac1Keys::one(key)), "cut off");
        // The second MAC is not covered.
        let bit = flip.index((len - 16) * 8);
        message[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!fits(&message, Mac1Keys::both(key, other)));
    }
}
