use std::net::IpAddr;

use weir_market::{event::sign_listing, key::MarketKey, listing::Listing, testing::listing};

use super::*;
use crate::{
    registry::{Now, Rules},
    testing::NOW,
};

fn shown(listings: &[Listing], query: &str) -> (StatusCode, String) {
    let registry = Registry::new(Rules { keys_per_network: 1000, ..Rules::default() });
    for (listing, number) in listings.iter().zip(0_u8..) {
        let event = sign_listing(&MarketKey::random(), listing, NOW, 0);
        let network = IpAddr::from([192, 0, number, 1]).into();
        let now = Now { unix: NOW, tick: 1 << 40 };
        assert_eq!(registry.publish(&event, network, now), Ok(()));
    }
    let description = Description { title: "A & B".into(), ..Description::default() };
    render(&registry, &description, ExitsQuery::parse(query), NOW + 300)
}

#[test]
fn the_page_lists_exits_without_a_script() {
    let listings = [listing("DE", "200 sat/GiB", 1), listing("FR", "100 sat/GiB", 2)];
    let (status, html) = shown(&listings, "");
    assert_eq!(status, StatusCode::OK);
    for part in [
        "<title>A &amp; B</title>",
        ">2 exits in 2 countries<",
        "<option value=\"DE\">DE (1)</option>",
        "<td title=\"The operator says so\">FR</td>",
        ">100 sat/GiB</td>",
        ">934 / 912 Mbit/s</td>",
        ">5 min ago</td>",
        "1 to 2 of 2",
    ] {
        assert!(html.contains(part), "no {part} in {html}");
    }
    assert!(html.find("100 sat/GiB") < html.find(">200 sat/GiB"), "the cheapest first");
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
    for brace in ['{', '}'] {
        assert!(!html.contains(brace), "a part was not filled in: {html}");
    }
}

#[test]
fn a_choice_is_kept_in_the_form_and_in_the_links() {
    let many: Vec<Listing> = (0..5).map(|host| listing("DE", "200 sat/GiB", host)).collect();
    let (_, html) = shown(&many, "country=DE&ip_type=residential&sort=newest&limit=2&offset=2");
    for part in [
        "<option value=\"DE\" selected>",
        "<option value=\"residential\" selected>Home</option>",
        "<option value=\"newest\" selected>",
        "3 to 4 of 5",
        "sort=newest&amp;limit=2&amp;offset=0\">Previous</a>",
        "sort=newest&amp;limit=2&amp;offset=4\">Next</a>",
    ] {
        assert!(html.contains(part), "no {part} in {html}");
    }
}

#[test]
fn a_wrong_choice_and_no_exits_are_said() {
    let (status, html) = shown(&[], "max_price=cheap");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(html.contains("All exits are shown, because max_price is &quot;cheap&quot;"), "{html}");
    assert!(html.contains("No exit matches."), "{html}");
}

#[test]
fn what_strangers_write_is_text() {
    let title = "<script>alert(1)</script>{table}'\"".to_owned();
    let nasty = Listing { title, ..listing("DE", "1 sat/GiB", 1) };
    let (_, html) = shown(&[nasty], "country=DE");
    assert!(!html.contains("<script"), "{html}");
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&#123;table}&#39;&quot;"),
        "{html}"
    );
}
