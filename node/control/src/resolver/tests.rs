use std::thread;

use super::{
    outside::{Answer, FileAccess, Question},
    *,
};

/// A resolver whose other side is a thread that knows two names.
fn resolver() -> (Resolver, thread::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let other = thread::spawn(|| {
        outside::answer_all(theirs, FileAccess::All, |host| match host {
            "both.example" => Ok(vec![[192, 0, 2, 1].into(), "2001:db8::1".parse().expect("v6")]),
            "none.example" => Ok(Vec::new()),
            _ => Err(io::Error::other("Name or service\nnot known")),
        })
    });
    let mut stream = BufReader::new(ours);
    let mut ready = String::new();
    stream.read_line(&mut ready).expect("it says what it reaches");
    assert_eq!(FileAccess::parse(&ready), Some(FileAccess::All));
    (Resolver(Some(Arc::new(Mutex::new(Outside { stream, asked: 0, _child: None })))), other)
}

#[tokio::test]
async fn names_are_looked_up_outside_and_addresses_are_not() {
    let (resolver, other) = resolver();
    let found = resolver.lookup("both.example", 443).await.expect("found");
    let expected: [SocketAddr; 2] =
        ["192.0.2.1:443", "[2001:db8::1]:443"].map(|text| text.parse().expect("an address"));
    assert_eq!(found, expected);
    assert_eq!(resolver.lookup("none.example", 1).await.expect("an answer"), []);
    let error = resolver.lookup("unknown.example\n9 both.example", 1).await.expect_err("unknown");
    assert_eq!(error.to_string(), "Name or service not known");
    for literal in ["9.9.9.9", "2620:fe::fe", "[2620:fe::fe]"] {
        let found = resolver.lookup(literal, 53).await.expect("an address");
        assert_eq!(found.len(), 1, "{literal}: {found:?}");
    }
    drop(resolver);
    other.join().expect("no panic").expect("it ends when the node does");
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_is_nobody_elses() {
    let (resolver, _other) = resolver();
    {
        let mut outside = resolver.0.as_ref().expect("outside").lock().expect("no panic");
        outside.asked += 1;
        let question = Question { number: outside.asked, host: "both.example" };
        writeln!(outside.stream.get_mut(), "{question}").expect("written");
    }
    assert_eq!(resolver.lookup("none.example", 1).await.expect("an answer"), []);
}

#[tokio::test]
async fn a_process_that_has_ended_is_said() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    drop(theirs);
    let outside = Outside { stream: BufReader::new(ours), asked: 0, _child: None };
    let resolver = Resolver(Some(Arc::new(Mutex::new(outside))));
    resolver.lookup("both.example", 1).await.expect_err("nobody is there");
}

#[test]
fn lines_read_back_as_written() {
    let question = Question { number: 7, host: "www.example" };
    assert_eq!(Question::parse(&format!("{question}\n")), Some(question));
    for found in [
        Ok(vec![]),
        Ok(vec![[192, 0, 2, 1].into(), IpAddr::from([0x20; 16])]),
        Err("not known".to_owned()),
        Err(String::new()),
    ] {
        let answer = Answer { number: 7, found };
        assert_eq!(Answer::parse(&format!("{answer}\n")), Some(answer));
    }
    for bad in ["", "x", "7", "x found", "7 found nothing"] {
        assert_eq!(Answer::parse(bad), None, "{bad}");
    }
    assert_eq!(FileAccess::parse("all\n"), Some(FileAccess::All));
    assert_eq!(FileAccess::parse(""), None);
}
