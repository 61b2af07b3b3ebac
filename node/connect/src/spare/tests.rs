use super::*;
use crate::conf::Conf;

/// A buyer that says what it was told to say, the last first.
struct Told(Vec<Result<Bought, NotBought>>);

impl Buyer for Told {
    fn price(&self) -> u64 {
        40
    }

    fn buy(&mut self, at_most: u64) -> Result<Bought, NotBought> {
        assert_eq!(at_most, 40);
        self.0.pop().expect("it was told")
    }
}

fn bought(spent: u64) -> Bought {
    let key = weir_wireguard::keys::PrivateKey::random();
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.0.0.2/32\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:1\n",
        key.print().as_str(),
        weir_wireguard::keys::print_public(&key.public())
    );
    let conf = Conf::parse(&text).expect("it is well formed");
    let endpoint = "192.0.2.1:1".parse().expect("an address");
    Bought { candidate: Candidate { name: "spare".into(), exit: None, conf, endpoint }, spent }
}

fn not_bought(may_be_paid: bool) -> NotBought {
    NotBought { error: anyhow!("no"), may_be_paid }
}

/// Waits for the purchase under way.
fn end(spares: &mut Spares, budget: &mut u64) -> anyhow::Result<Bought> {
    loop {
        if let Some(ended) = spares.ended(budget) {
            return ended;
        }
        thread::yield_now();
    }
}

#[test]
fn a_spare_is_bought_soon_after_an_exit_has_answered_and_once() {
    let mut spares = Spares::new(Some(Box::new(Told(vec![Ok(bought(38))]))));
    let mut budget = 100;
    spares.connected(10);
    spares.begin(9 + DELAY, &mut budget);
    assert!(spares.under_way.is_none(), "too early");
    spares.begin(10 + DELAY, &mut budget);
    assert_eq!(budget, 60, "nobody else can spend it meanwhile");
    spares.begin(u64::MAX, &mut budget);
    assert_eq!(end(&mut spares, &mut budget).expect("bought").spent, 38);
    assert_eq!(budget, 62);
}

#[test]
fn the_budget_must_have_it_twice() {
    let mut spares = Spares::new(Some(Box::new(Told(Vec::new()))));
    for mut budget in [0, 40, 79] {
        spares.begin(u64::MAX, &mut budget);
        assert!(spares.under_way.is_none(), "{budget}");
    }
    let mut nobody = Spares::new(None);
    nobody.begin(u64::MAX, &mut 1000);
    assert!(nobody.under_way.is_none());
}

#[test]
fn what_may_be_paid_does_not_come_back_and_the_next_try_is_later() {
    let told = vec![Err(not_bought(true)), Err(not_bought(false))];
    let mut spares = Spares::new(Some(Box::new(Told(told))));
    let (mut budget, mut now) = (120, DELAY);
    spares.begin(now, &mut budget);
    assert!(end(&mut spares, &mut budget).is_err());
    assert_eq!(budget, 120, "not paid");
    spares.begin(now + RETRY_DELAY - 1, &mut budget);
    assert!(spares.under_way.is_none(), "too early");
    now += RETRY_DELAY;
    spares.begin(now, &mut budget);
    assert!(end(&mut spares, &mut budget).is_err());
    assert_eq!(budget, 80, "perhaps paid");
}
