use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const LONG: Duration = Duration::from_secs(3600);
const LIMITS: Limits = Limits { total: 8, per_source: 2, lifetime: LONG, idle: LONG };

type Stream = Connection<DuplexStream, u8>;

async fn connect(connections: &Connections<u8>, source: u8) -> (Stream, DuplexStream) {
    let (near, far) = duplex(64);
    (connections.stranger(connections.permit().await, source, near), far)
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Whether it is over, as a read sees it at once. Nothing has been written to it.
async fn is_over(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let read = std::pin::pin!(stream.read(&mut byte));
    match poll_once(read).await {
        Poll::Pending => false,
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => true,
        Poll::Ready(other) => panic!("{other:?} of a silent stream"),
    }
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_prolong_a_strangers_life() {
    let lifetime = Duration::from_millis(300);
    let (mut stream, mut far) = connect(&Connections::new(Limits { lifetime, ..LIMITS }), 1).await;
    let writer = tokio::spawn(async move {
        while far.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    let (mut read, mut byte) = (0, [0]);
    let error = loop {
        match stream.read(&mut byte).await {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
        assert!(read < 10_000, "it goes on");
    };
    assert!(read > 0 && error.kind() == io::ErrorKind::TimedOut, "{read}: {error}");
    drop(stream);
    writer.await.expect("the other end sees it");
}

#[tokio::test]
async fn what_moves_on_a_trusted_connection_prolongs_it_and_silence_ends_it() {
    let idle = Duration::from_millis(300);
    let limits = Limits { lifetime: idle, idle, ..LIMITS };
    let (mut stream, mut far) = connect(&Connections::new(limits), 1).await;
    stream.trust().grant();
    let began = Instant::now();
    while began.elapsed() < 2 * idle {
        far.write_all(b"a").await.expect("the stream is there");
        assert_eq!(stream.read_u8().await.expect("what was written"), b'a');
    }
    let error = stream.read_u8().await.expect_err("nothing comes");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_oldest_stranger_of_a_source_makes_room_and_no_other() {
    let connections = Connections::new(LIMITS);
    let mut other = connect(&connections, 2).await;
    let mut first = connect(&connections, 1).await;
    let mut second = connect(&connections, 1).await;
    assert!(!is_over(&mut first.0).await);
    let mut third = connect(&connections, 1).await;
    assert!(is_over(&mut first.0).await && is_over(&mut first.0).await);
    for (stream, _) in [&mut other, &mut second, &mut third] {
        assert!(!is_over(stream).await);
    }
    // A place that is given back is free.
    drop(second);
    let mut fourth = connect(&connections, 1).await;
    assert!(!is_over(&mut third.0).await && !is_over(&mut fourth.0).await);
}

#[tokio::test]
async fn trusted_connections_have_no_place_of_their_source() {
    let connections = Connections::new(LIMITS);
    let mut trusted = [connect(&connections, 1).await, connect(&connections, 1).await];
    for (stream, _) in &mut trusted {
        stream.trust().grant();
        assert!(!is_over(stream).await);
    }
    let mut strangers = [connect(&connections, 1).await, connect(&connections, 1).await];
    for (stream, _) in trusted.iter_mut().chain(&mut strangers) {
        assert!(!is_over(stream).await);
    }
}

#[tokio::test]
async fn there_is_room_for_so_many_and_what_ends_makes_room() {
    let connections = Connections::new(Limits { total: 1, ..LIMITS });
    let first = connect(&connections, 1).await;
    let mut more = std::pin::pin!(connections.permit());
    assert!(poll_once(more.as_mut()).await.is_pending());
    drop(first);
    more.await;
}

#[test]
fn a_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
    let network = |text: &str| Network::from(text.parse::<IpAddr>().expect("an address"));
    assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
    assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
}
