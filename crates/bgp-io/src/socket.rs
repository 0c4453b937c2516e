//! Sockets with the options that BGP needs.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use margay_bgp::{SocketOptions, Target};
use margay_model::Cidr;
use margay_netlink::tcp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Opens a listening socket.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes a connection.
pub(crate) async fn connect(target: Target) -> io::Result<TcpStream> {
    let address = match target.address {
        IpAddr::V4(_) => SocketAddr::new(target.address, target.port),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, target.port, 0, target.scope).into(),
    };
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    if let Some(source) = target.source {
        let local = match source {
            IpAddr::V4(_) => SocketAddr::new(source, 0),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, 0, 0, target.scope).into(),
        };
        socket.bind(&local.into())?;
    }
    if let Some(password) = &target.options.password {
        let range = Cidr::host(target.address).network();
        tcp::set_md5_key(&socket, range, password.as_bytes()).map_err(io::Error::other)?;
    }
    set_ttls(&socket, target.address, &target.options)?;
    TcpSocket::from_std_stream(socket.into())
        .connect(address)
        .await
}

/// Sets what the options say of TTLs, and sends at once what is written.
pub(crate) fn set_ttls(
    socket: &impl std::os::fd::AsFd,
    peer: IpAddr,
    options: &SocketOptions,
) -> io::Result<()> {
    if let Some(ttl) = options.ttl {
        tcp::set_ttl(socket, peer, ttl).map_err(io::Error::other)?;
    }
    if let Some(ttl) = options.min_ttl {
        tcp::set_min_ttl(socket, peer, ttl).map_err(io::Error::other)?;
    }
    socket2::SockRef::from(socket).set_tcp_nodelay(true)
}

/// So many nodes may connect in the same instant.
const BACKLOG: i32 = 4096;
