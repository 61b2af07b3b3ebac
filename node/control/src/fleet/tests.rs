use super::*;

fn fleet(url: &str) -> weir_config::Fleet {
    weir_config::Fleet {
        url: url.to_owned(),
        name: "exit-7".to_owned(),
        ..weir_config::Fleet::default()
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_no_error_and_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let link =
        Link::connect(&fleet(&format!("nats://{address}"))).await.expect("it goes on trying");
    assert!(!link.is_up());
    let expected = format!("no connection to nats://{address}");
    assert!(link.describe().starts_with(&expected), "{}", link.describe());
    while !link.describe().contains("Connection refused") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(link.describe().starts_with(&format!("{expected}: ")), "{}", link.describe());
    let mut stream = Stream::new(link, &fleet("nats://unused"));
    let refused = crate::delivery::Receiver::take(&mut stream, &[]).await.expect_err("refused");
    assert!(refused.to_string().contains(&address.to_string()), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named_with_what_to_do() {
    let missing = "/nonexistent/file".to_owned();
    for (key, config) in [
        (
            "credentials_file",
            weir_config::Fleet { credentials_file: missing.clone(), ..fleet("nats://h") },
        ),
        ("token_file", weir_config::Fleet { token_file: missing.clone(), ..fleet("nats://h") }),
        ("ca_file", weir_config::Fleet { ca_file: missing.clone(), ..fleet("tls://h") }),
    ] {
        let error = Link::connect(&config).await.expect_err("refused").to_string();
        assert!(error.contains(&format!("fleet.{key} {missing}. Fix: ")), "{error}");
    }
}
