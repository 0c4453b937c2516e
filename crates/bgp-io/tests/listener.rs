//! Who may connect, and how often.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use margay_bgp::{Event, PeerConfig, Refusal, RemoteAs, SpeakerConfig};
use margay_bgp_io::{Settings, start};
use margay_model::scalar::AsNumber;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection from an address of the loopback.
async fn connect(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    socket.connect(to).await
}

/// The first octets of the speaker's OPEN; nothing where the connection ends before.
async fn hear(mut stream: TcpStream) -> Option<[u8; 19]> {
    let mut header = [0; 19];
    let read = timeout(PATIENCE, stream.read_exact(&mut header)).await;
    read.unwrap().is_ok().then_some(header)
}

#[tokio::test]
async fn whoever_connects_all_the_time_harms_nobody() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = free.local_addr().unwrap();
    drop(free);
    let mut speaker = SpeakerConfig::new(AsNumber(64512), "10.0.0.1".parse().unwrap());
    for last in [2, 3] {
        let address: IpAddr = [127, 0, 0, last].into();
        let mut peer = PeerConfig::new(address, RemoteAs::Is(AsNumber(64513)));
        peer.passive = true;
        speaker.peers.insert(format!("p{last}"), peer);
    }
    let (handle, mut news) = start(Settings {
        listen: vec![to],
        speaker,
        seed: 1,
        restarting: false,
    })
    .unwrap();
    // A peer and somebody unknown, each as fast as it can.
    let mut told = Vec::new();
    for from in ["127.0.0.3", "127.0.0.9"] {
        for _ in 0..500 {
            let _ = connect(from, to).await;
        }
        // People are told, and not each time.
        while !told.contains(&from.to_owned()) {
            let heard = timeout(PATIENCE, news.next()).await.unwrap().unwrap();
            told.extend(heard.events.into_iter().filter_map(|event| match event {
                Event::ConnectionRefused {
                    address,
                    reason: Refusal::TooMany,
                } => Some(address.to_string()),
                _ => None,
            }));
        }
    }
    assert_eq!(told, ["127.0.0.3", "127.0.0.9"]);
    let open = hear(connect("127.0.0.2", to).await.unwrap()).await.unwrap();
    assert_eq!(open[..16], [0xff; 16]);
    // The listener takes connections in their order, so all others have been dealt with.
    let throttled = handle.peers().await.unwrap().throttled;
    assert!(throttled > 100, "{throttled}");
    // The one that was refused is served again after a while.
    let served = async {
        while hear(connect("127.0.0.3", to).await.unwrap())
            .await
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, served).await.unwrap();
}
