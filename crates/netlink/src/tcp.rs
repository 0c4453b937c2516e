//! Options of TCP sockets that have no safe wrapper elsewhere: MD5 signatures, TTLs.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::{Error, Result};

/// Has a socket sign what it sends to, and check what it receives from, a range of addresses with
/// a key (RFC 2385; `TCP_MD5SIG_EXT` of `linux/tcp.h`). An empty key takes the range's key away.
///
/// On a listening socket the longest range that holds the peer's address counts.
///
/// # Errors
/// [`Error::TcpOption`]: `ENOMEM` when `net.core.optmem_max` is too small for so many keys,
/// `ENOENT` when there is no key to take away, `EINVAL` for a key of more than 80 octets.
pub fn set_md5_key(socket: &impl AsFd, range: IpNetwork, key: &[u8]) -> Result<()> {
    let option = "TCP_MD5SIG_EXT";
    let value = md5_option(range, key).ok_or(Error::TcpOption {
        option,
        source: Errno::EINVAL,
    })?;
    set(
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_MD5SIG_EXT,
        &value,
        option,
    )
}

/// Sets the TTL, or the hop limit, of what a socket sends to a peer of the family of `peer`.
///
/// # Errors
/// [`Error::TcpOption`].
pub fn set_ttl(socket: &impl AsFd, peer: IpAddr, ttl: u8) -> Result<()> {
    let ttl = i32::from(ttl);
    let (option, set) = match peer {
        IpAddr::V4(_) => ("IP_TTL", setsockopt(socket, sockopt::Ipv4Ttl, &ttl)),
        IpAddr::V6(_) => (
            "IPV6_UNICAST_HOPS",
            setsockopt(socket, sockopt::Ipv6Ttl, &ttl),
        ),
    };
    set.map_err(|source| Error::TcpOption { option, source })
}

/// Has a socket drop packets of less than this TTL, or hop limit (RFC 5082).
///
/// # Errors
/// [`Error::TcpOption`].
pub fn set_min_ttl(socket: &impl AsFd, peer: IpAddr, ttl: u8) -> Result<()> {
    let value = i32::from(ttl).to_ne_bytes();
    match peer {
        IpAddr::V4(_) => set(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MINTTL,
            &value,
            "IP_MINTTL",
        ),
        IpAddr::V6(_) => set(
            socket,
            libc::IPPROTO_IPV6,
            IPV6_MINHOPCOUNT,
            &value,
            "IPV6_MINHOPCOUNT",
        ),
    }
}

/// `struct tcp_md5sig`: a `sockaddr_storage`, flags, prefix length, key length, interface, key.
fn md5_option(range: IpNetwork, key: &[u8]) -> Option<[u8; MD5_SIZE]> {
    let mut value = [0; MD5_SIZE];
    let mut put = |place: usize, octets: &[u8]| -> Option<()> {
        value
            .get_mut(place..place + octets.len())?
            .copy_from_slice(octets);
        Some(())
    };
    let (family, place) = match range {
        IpNetwork::V4(_) => (libc::AF_INET, ADDRESS_V4),
        IpNetwork::V6(_) => (libc::AF_INET6, ADDRESS_V6),
    };
    put(0, &u16::try_from(family).ok()?.to_ne_bytes())?;
    match range.network() {
        IpAddr::V4(address) => put(place, &address.octets())?,
        IpAddr::V6(address) => put(place, &address.octets())?,
    }
    put(FLAGS, &[MD5_FLAG_PREFIX, range.prefix()])?;
    let length = u16::try_from(key.len())
        .ok()
        .filter(|_| key.len() <= MD5_KEY_MAX)?;
    put(KEY_LENGTH, &length.to_ne_bytes())?;
    put(KEY, key)?;
    Some(value)
}

fn set(
    socket: &impl AsFd,
    level: i32,
    name: i32,
    value: &[u8],
    option: &'static str,
) -> Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads
    // `length` octets of `value` and keeps no reference to it.
    #[expect(unsafe_code, reason = "there is no safe wrapper of these options")]
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    Errno::result(status)
        .map(drop)
        .map_err(|source| Error::TcpOption { option, source })
}

/// `linux/in6.h`.
const IPV6_MINHOPCOUNT: i32 = 73;
// `linux/tcp.h`.
const MD5_FLAG_PREFIX: u8 = 1;
const MD5_KEY_MAX: usize = 80;
const ADDRESS_V4: usize = 4;
const ADDRESS_V6: usize = 8;
const FLAGS: usize = 128;
const KEY_LENGTH: usize = 130;
const KEY: usize = 136;
const MD5_SIZE: usize = 216;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_option_is_laid_out_as_the_kernel_has_it() {
        let value = md5_option("10.200.0.0/16".parse().unwrap(), b"key").unwrap();
        assert_eq!(value[..8], [2, 0, 0, 0, 10, 200, 0, 0]);
        assert_eq!(value[128..139], [1, 16, 3, 0, 0, 0, 0, 0, b'k', b'e', b'y']);
        let value = md5_option("fd00::/64".parse().unwrap(), b"key").unwrap();
        assert_eq!(value[..10], [10, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0]);
        assert_eq!(value[128..130], [1, 64]);
        assert!(md5_option("fd00::/64".parse().unwrap(), &[0; 81]).is_none());
    }

    #[test]
    fn keys_of_ranges_are_taken_and_taken_away() {
        for (address, range) in [("127.0.0.1:0", "127.0.0.0/8"), ("[::1]:0", "::/64")] {
            let range: IpNetwork = range.parse().unwrap();
            let listener = TcpListener::bind(address).unwrap();
            set_md5_key(&listener, range, b"secret").unwrap();
            set_md5_key(&listener, range, b"").unwrap();
            let again = set_md5_key(&listener, range, b"");
            let absent = matches!(
                again,
                Err(Error::TcpOption {
                    source: Errno::ENOENT,
                    ..
                })
            );
            assert!(absent, "{again:?}");
        }
    }

    #[test]
    fn packets_from_afar_are_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut here, peer) = listener.accept().unwrap();
        set_min_ttl(&here, peer.ip(), 255).unwrap();
        set_ttl(&near, peer.ip(), 254).unwrap();
        near.write_all(b"far").unwrap();
        here.set_read_timeout(Some(std::time::Duration::from_millis(100)))
            .unwrap();
        assert!(here.read(&mut [0; 8]).is_err());
        set_ttl(&near, peer.ip(), 255).unwrap();
        here.set_read_timeout(None).unwrap();
        near.write_all(b"near").unwrap();
        assert!(here.read(&mut [0; 8]).unwrap() > 0);
    }
}
