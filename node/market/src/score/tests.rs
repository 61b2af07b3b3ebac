use proptest::prelude::*;

use super::*;
use crate::{
    attestation::Attestation,
    event::{sign_attestation, sign_listing},
    key::MarketKey,
    listing::Capacity,
    place::Place,
    testing::listing,
    view::View,
};

const NOW: u64 = 1_800_000_000;

fn view(listings: impl IntoIterator<Item = Listing>) -> View {
    let mut view = View::default();
    for listing in listings {
        let event = sign_listing(&MarketKey::random(), &listing, NOW, 0);
        view.admit(event, "ws://a/", NOW).expect("it counts");
    }
    view
}

fn titles(view: &View, wish: &Wish) -> Vec<String> {
    let all = view.choose(wish, &NoHistory, NOW);
    all.iter().map(|scored| scored.offer.signed.listing.title.clone()).collect()
}

fn wish(change: impl FnOnce(&mut Wish)) -> Wish {
    let mut wish = Wish::default();
    change(&mut wish);
    wish
}

#[test]
fn each_wish_leaves_out_what_does_not_fit_and_says_why() {
    let de = listing("DE", "200 sat/GiB", 1);
    let reason = |change: fn(&mut Wish)| fits(&de, &[], &wish(change)).err();
    assert_eq!(reason(|_| {}), None);
    assert_eq!(reason(|wish| wish.country = "FR".parse().ok()), Some(Unfit::Country));
    assert_eq!(reason(|wish| wish.ip_type = Some(IpType::Hosting)), Some(Unfit::IpType));
    assert_eq!(reason(|wish| wish.max_price = "199sat/GiB".parse().ok()), Some(Unfit::Price));
    assert_eq!(reason(|wish| wish.max_price = "200sat/GiB".parse().ok()), None);
    assert_eq!(reason(|wish| wish.max_price = "1MYST/GiB".parse().ok()), Some(Unfit::Price));
    assert_eq!(reason(|wish| wish.methods = vec!["cashu".into()]), Some(Unfit::Method));
    assert_eq!(reason(|wish| wish.methods = vec!["cashu".into(), "voucher".into()]), None);
    assert_eq!(reason(|wish| wish.features = vec!["portforward".into()]), Some(Unfit::Feature));
    let sold = Listing { state: State::Sold, ..de.clone() };
    assert_eq!(fits(&sold, &[], &Wish::default()), Err(Unfit::Sold));
    assert_eq!(fits(&sold, &[], &wish(|wish| wish.sold_too = true)), Ok(()));
    let punched = Listing { reach: Reach::Punch, ..de };
    assert_eq!(fits(&punched, &[], &wish(|wish| wish.any_app = true)), Err(Unfit::Reach));
}

#[test]
fn the_order_is_by_price_capacity_or_score() {
    let cheap = listing("DE", "100 sat/GiB", 1);
    let fast = Listing {
        measured: Some(Capacity { up: 9000, down: 9000, measured_at: 1 }),
        ..listing("FR", "300 sat/GiB", 2)
    };
    let unmeasured = Listing { measured: None, ..listing("NL", "0.0000015 BTC/GiB", 3) };
    let foreign = listing("SE", "1 MYST/GiB", 4);
    let view = view([cheap, fast, unmeasured, foreign]);
    let order = |sort| {
        let titles = titles(&view, &wish(|wish| wish.sort = sort));
        titles.iter().map(|title| title.replace("weir exit ", "")).collect::<Vec<_>>()
    };
    assert_eq!(order(Sort::Score)[0], "DE");
    assert_eq!(order(Sort::Price), ["DE", "NL", "FR", "SE"]);
    assert_eq!(order(Sort::Capacity)[0], "FR");
}

#[test]
fn own_history_counts_most_and_nothing_known_is_neutral() {
    struct Known(String, Experience);
    impl History for Known {
        fn of(&self, key: &str) -> Option<Experience> {
            (key == self.0).then_some(self.1)
        }
    }
    let view = view([listing("DE", "100 sat/GiB", 1), listing("DE", "101 sat/GiB", 2)]);
    let neutral = view.choose(&Wish::default(), &NoHistory, NOW);
    let (first, second) = (neutral[0].offer.key(), neutral[1].offer.key());
    let part = |scored: &Scored<'_>| scored.parts[0].points;
    assert_eq!(part(&neutral[0]), 15.0);
    let bad = Known(first, Experience { bad: 1, ..Experience::default() });
    let after = view.choose(&Wish::default(), &bad, NOW);
    assert_eq!(after[0].offer.key(), second);
    assert_eq!(part(&after[1]), 0.0);
    let good = Known(second.clone(), Experience { good: 3, ..Experience::default() });
    let after = view.choose(&Wish::default(), &good, NOW);
    assert_eq!((after[0].offer.key(), part(&after[0])), (second, 30.0));
}

#[test]
fn believed_watchers_count_less_than_own_history_and_more_than_all_claims() {
    struct Known(String, Experience);
    impl History for Known {
        fn of(&self, key: &str) -> Option<Experience> {
            (key == self.0).then_some(self.1)
        }
    }
    let worst = Listing {
        measured: Some(Capacity { up: 0, down: 0, measured_at: 1 }),
        reach: Reach::Relay,
        country: None,
        free_slots: Some(0),
        ..listing("DE", "100 sat/GiB", 1)
    };
    let best = Listing {
        measured: Some(Capacity { up: 9000, down: 9000, measured_at: 1 }),
        country_basis: Basis::Database,
        ..listing("DE", "100 sat/GiB", 2)
    };
    let mut view = view([worst, best]);
    view.believe(&[MarketKey::for_tests(1).public().into()]);
    let by_claims = view.choose(&Wish::default(), &NoHistory, NOW);
    let (best, worst) = (by_claims[0].offer.signed.address(), by_claims[1].offer.key());
    let attested = Attestation::new(best.clone(), Reason::PaidNoTraffic);
    let event = sign_attestation(&MarketKey::for_tests(1), &attested, NOW);
    view.admit(event, "ws://a/", NOW).expect("it counts");
    let neutral_place = view.choose(&Wish::default(), &NoHistory, NOW);
    let first = &neutral_place[0];
    let part = |scored: &Scored<'_>, name| {
        let part = scored.parts.iter().find(|part| part.name == name).expect("a part");
        (part.points, part.why.clone())
    };
    // All claims are worth less than a watcher's bad word is away from a neutral one.
    let claims: f64 = ["capacity", "reach", "place", "free slots"]
        .iter()
        .map(|name| first.parts.iter().find(|part| part.name == *name).expect("a part").max / 2.0)
        .sum();
    let watchers = first.parts.iter().find(|part| part.name == "watchers").expect("a part");
    assert!(claims < watchers.max / 2.0, "{claims}");
    let history = first.parts.iter().find(|part| part.name == "own history").expect("a part");
    assert!(watchers.max < history.max, "own history outweighs any watchers");
    let key = MarketKey::for_tests(1).public().to_hex();
    let attested = neutral_place.iter().find(|it| it.offer.signed.address() == best);
    let (points, why) = part(attested.expect("it is there"), "watchers");
    assert_eq!(points, 0.0);
    assert_eq!(why, format!("0 of 1 that you believe say ok; {} says paid-no-traffic", &key[..8]));

    let own = Experience {
        good: 2,
        bad: 1,
        last_failure: Some(Reason::NoHandshake),
        connect_ms: Some(84),
    };
    let known = view.choose(&Wish::default(), &Known(worst.clone(), own), NOW);
    let scored = known.iter().find(|it| it.offer.key() == worst).expect("it is there");
    let (points, why) = part(scored, "own history");
    assert_eq!(points, 15.0, "a failure counts twice");
    assert_eq!(why, "2 connections worked, 1 failed (last: no-handshake); it answers in 84 ms");
}

#[test]
fn what_watchers_measured_takes_the_place_of_claims() {
    let mut view = view([listing("DE", "100 sat/GiB", 1)]);
    view.believe(&[1, 2, 3].map(|number| MarketKey::for_tests(number).public().into()));
    let subject = view.offers().next().expect("an exit").signed.address();
    let seen = |country: &str, ip_type| Attestation {
        down: Some(100),
        seen: Place { country: country.parse().ok(), asn: None, ip_type },
        ..Attestation::new(subject.clone(), Reason::Ok)
    };
    let mut attest = |watcher: u8, attestation: &Attestation| {
        let event = sign_attestation(&MarketKey::for_tests(watcher), attestation, NOW);
        view.admit(event, "ws://a/", NOW).expect("it counts");
        let all = view.choose(&Wish::default(), &NoHistory, NOW);
        let scored = all.iter().find(|it| it.offer.signed.address() == subject).expect("there");
        let why =
            |name| scored.parts.iter().find(|part| part.name == name).expect("it").why.clone();
        let wish = wish(|wish| wish.country = "DE".parse().ok());
        let fits = view.fits(scored.offer, &wish, NOW).err();
        (why("capacity"), why("place"), fits)
    };
    let (capacity, place, fits) = attest(1, &seen("DE", Some(IpType::Residential)));
    assert_eq!(capacity, "100 Mbit/s down, the median of 1 that you believe");
    assert_eq!((place.as_str(), fits), ("DE, residential: 1 of 1 that you believe agree", None));
    let lie = Attestation { down: Some(9_000_000), ..seen("NL", None) };
    let (capacity, place, fits) = attest(2, &lie);
    assert_eq!(capacity, "100 Mbit/s down, the median of 2 that you believe");
    assert_eq!((place.as_str(), fits), ("DE, residential: 1 of 2 that you believe agree", None));
    let (_, place, fits) = attest(3, &seen("NL", Some(IpType::Hosting)));
    assert_eq!(place, "DE, residential: 1 of 3 that you believe agree");
    assert_eq!(fits, Some(Unfit::SeenElsewhere));
}

#[test]
fn one_of_the_best_few_is_picked() {
    let view = view((1..=5).map(|host| listing("DE", "1 sat/GiB", host)));
    let all = view.choose(&Wish::default(), &NoHistory, NOW);
    let picked: std::collections::BTreeSet<_> =
        (0..100).filter_map(|random| pick(&all, 3, random)).map(|it| it.offer.key()).collect();
    let best: std::collections::BTreeSet<_> = all[..3].iter().map(|it| it.offer.key()).collect();
    assert_eq!(picked, best);
    assert!(pick(&[], 3, 7).is_none());
    assert!(pick(&all, 0, 7).is_some() && pick(&all, 100, u64::MAX).is_some());
}

proptest! {
    #[test]
    fn a_score_is_the_sum_of_its_parts_and_does_not_depend_on_the_order(
        prices in proptest::collection::vec(0_u64..1_000_000, 1..8),
        down in proptest::collection::vec(proptest::option::of(any::<u32>()), 8),
        free in proptest::collection::vec(proptest::option::of(any::<u32>()), 8),
        slide in 0_usize..8,
    ) {
        let listings = prices.iter().enumerate().map(|(at, price)| Listing {
            measured: down[at].map(|down| Capacity { up: 0, down, measured_at: 0 }),
            free_slots: free[at],
            ..listing("DE", &format!("{price} sat/GiB"), at as u8)
        });
        let view = view(listings);
        let mut candidates: Vec<_> = view.candidates(NOW).collect();
        let one: Vec<_> = choose(&candidates, &Wish::default(), &NoHistory)
            .iter().map(|it| (it.offer.key(), it.score)).collect();
        let slide = slide % candidates.len();
        candidates.rotate_left(slide);
        let all = choose(&candidates, &Wish::default(), &NoHistory);
        let other: Vec<_> = all.iter().map(|it| (it.offer.key(), it.score)).collect();
        prop_assert_eq!(one, other);
        for scored in &all {
            prop_assert!((0.0..=100.0).contains(&scored.score), "{}", scored.score);
            for part in &scored.parts {
                prop_assert!((0.0..=part.max).contains(&part.points), "{part:?}");
            }
            let sum: f64 = scored.parts.iter().map(|part| part.max).sum();
            prop_assert!((sum - 100.0).abs() < 1e-9);
        }
    }
}
