#![expect(clippy::unwrap_used, reason = "what is not as a test assumes fails it")]

use super::*;

#[test]
fn a_message_comes_back_and_a_damaged_one_does_not() {
    let key = Key::new(&[7; KEY_LEN]);
    for path in Path::available() {
        let mut sealed = [0; 32 + TAG_LEN];
        let mut seals = [Seal::new(&key, 5, b"an inner packet", 17, &mut sealed).unwrap()];
        seal_batch(path, &mut seals);
        let (mut text, mut other) = ([1; 32], [1; 32]);
        let damaged = {
            let mut damaged = sealed;
            damaged[3] ^= 1;
            damaged
        };
        let mut opens = [
            Open::new(&key, 5, &sealed, &mut text).unwrap(),
            Open::new(&key, 5, &damaged, &mut other).unwrap(),
        ];
        open_batch(path, &mut opens);
        let outcomes = opens.map(|open| open.outcome());
        assert_eq!(outcomes, [Outcome::Authentic, Outcome::Forged], "{}", path.name());
        assert_eq!(&text[..15], b"an inner packet");
        assert_eq!((&text[15..], other), (&[0; 17][..], [0; 32]));
    }
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let key = Key::new(&[7; KEY_LEN]);
    let mut buffer = [0; 64];
    let short = Seal::new(&key, 0, &[0; 40], 8, &mut buffer[..63]).unwrap_err();
    assert_eq!(short, LengthError::Destination { expected: 64, actual: 63 });
    let long = Seal::new(&key, 0, &[0; 40], usize::MAX, &mut buffer).unwrap_err();
    assert_eq!(long, LengthError::TooLong);
    let short = Open::new(&key, 0, &[0; 15], &mut []).unwrap_err();
    assert_eq!(short, LengthError::TooShort);
    let long = Open::new(&key, 0, &[0; 60], &mut buffer).unwrap_err();
    assert_eq!(long, LengthError::Destination { expected: 44, actual: 64 });
    let long = vec![0; MAX_TEXT_LEN + TAG_LEN + 1];
    assert_eq!(Open::new(&key, 0, &long, &mut buffer).unwrap_err(), LengthError::TooLong);
}
