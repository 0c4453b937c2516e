//! What comes out of BIRD's control socket, in whatever pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_bgp::{PeerConfig, RemoteAs, SpeakerConfig};
use margay_bird::{Replies, protocols, routes, view};
use margay_model::scalar::AsNumber;

fuzz_target!(|octets: &[u8]| {
    let whole = Replies::default().push(octets);
    let mut replies = Replies::default();
    let mut pieces = Ok(Vec::new());
    for piece in octets.chunks(7) {
        match (replies.push(piece), &mut pieces) {
            (Ok(more), Ok(all)) => all.extend(more),
            (Err(error), Ok(_)) => pieces = Err(error),
            (_, Err(_)) => break,
        }
    }
    assert_eq!(whole.is_ok(), pieces.is_ok());
    let Ok(whole) = whole else {
        return;
    };
    assert_eq!(Ok(&whole), pieces.as_ref());
    let mut speaker = SpeakerConfig::new(AsNumber(64512), [172, 31, 9, 2].into());
    let peer = PeerConfig::new([172, 31, 9, 3].into(), RemoteAs::External);
    speaker
        .peers
        .insert("Mesh_172_31_9_3".to_owned(), peer.clone());
    for reply in &whole {
        for peer in view::peers(&speaker, &protocols(reply)) {
            assert!(speaker.peers.contains_key(&*peer.name));
        }
        let entries = routes(reply);
        for entry in view::table(entries.clone(), &speaker) {
            assert!(!entry.paths.is_empty());
        }
        let count = entries.len();
        assert_eq!(
            view::advertised(entries.clone(), &speaker, &peer).len(),
            count
        );
        assert_eq!(view::received(entries, &[]).len(), count);
    }
});
