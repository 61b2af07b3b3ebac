use super::*;

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let key = Key::new(&[7; KEY_LEN]);
    let mut buffer = [0; 64];
    let short = Seal::new(&key, 0, &[0; 40], 8, &mut buffer[..63]).err();
    assert_eq!(short, Some(LengthError::Destination { expected: 64, actual: 63 }));
    let long = Seal::new(&key, 0, &[0; 40], usize::MAX, &mut buffer).err();
    assert_eq!(long, Some(LengthError::TooLong));
    let short = Open::new(&key, 0, &[0; 15], &mut []).err();
    assert_eq!(short, Some(LengthError::TooShort));
    let long = Open::new(&key, 0, &[0; 60], &mut buffer).err();
    assert_eq!(long, Some(LengthError::Destination { expected: 44, actual: 64 }));
    let long = vec![0; MAX_TEXT_LEN + TAG_LEN + 1];
    assert_eq!(Open::new(&key, 0, &long, &mut buffer).err(), Some(LengthError::TooLong));
}

#[test]
fn no_messages_are_no_work() {
    for under in Under::all() {
        under.seal_batch(&mut []);
        under.open_batch(&mut []);
    }
}

#[test]
fn the_longest_message_comes_back() {
    let (key, text) = (Key::new(&[9; KEY_LEN]), bytes(MAX_TEXT_LEN, 1));
    for under in Under::all() {
        let mut sealed = vec![0; MAX_TEXT_LEN + TAG_LEN];
        under.seal_batch(&mut [Seal::new(&key, 1, &text, 0, &mut sealed).unwrap()]);
        let mut opened = vec![0; MAX_TEXT_LEN];
        let mut jobs = [Open::new(&key, 1, &sealed, &mut opened).unwrap()];
        under.open_batch(&mut jobs);
        assert_eq!(jobs[0].outcome(), Outcome::Authentic, "{under:?}");
        assert!(opened == text, "{under:?}");
    }
}

#[test]
fn a_key_is_not_printed() {
    assert_eq!(format!("{:?}", Key::new(&[0x41; KEY_LEN])), "Key(..)");
}
