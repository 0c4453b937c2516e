//! Where clients come in: a TCP port, or a unix socket for root alone.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::Stream;
use crate::Error;

/// A bound socket, ready to be served.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    name: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on a host name or address and a port; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`Error::ListenTcp`] with the address.
    pub async fn tcp(host: &str, port: u16) -> Result<Self, Error> {
        let refused = |source| Error::ListenTcp {
            address: format!("{host}:{port}"),
            source,
        };
        let socket = TcpListener::bind((host, port)).await.map_err(refused)?;
        let name = socket.local_addr().map_err(refused)?.to_string();
        Ok(Self {
            socket: Socket::Tcp(socket),
            name,
        })
    }

    /// Listens on a unix socket that only the owner of the process may open (mode 0600).
    ///
    /// A socket that a dead process left at `path` is replaced; the new one appears there at once
    /// with its final mode.
    ///
    /// # Errors
    /// [`Error::SocketInUse`] when somebody answers there, else [`Error::ListenUnix`].
    pub async fn unix(path: &Path) -> Result<Self, Error> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::SocketInUse {
                path: path.to_owned(),
            });
        }
        let socket = bind_beside(path).map_err(|source| Error::ListenUnix {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            socket: Socket::Unix(socket),
            name: path.display().to_string(),
        })
    }

    /// The TCP address in use, with the port that the kernel chose; `None` for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// The next connection, for a program that speaks a protocol of its own.
    ///
    /// # Errors
    /// The process is out of descriptors or memory, or the client has gone already.
    pub async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.socket {
            Socket::Tcp(socket) => Box::new(socket.accept().await?.0),
            Socket::Unix(socket) => Box::new(socket.accept().await?.0),
        })
    }
}

impl fmt::Display for Listener {
    /// The TCP address or the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Binds under a private name, sets the mode and renames into place.
fn bind_beside(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|there| !is_socket(&there)) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket"));
    }
    let mut name = OsString::from(path);
    name.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(name);
    let _ = fs::remove_file(&draft);
    let bound = UnixListener::bind(&draft)?;
    let placed = fs::set_permissions(&draft, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(bound)
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
}
