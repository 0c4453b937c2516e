//! Requests on one connection.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::access::Access;
use crate::error::Error;
use crate::objects::{Namespace, Node, Pod, Token};
use crate::tls;

/// A client of one API server. It connects for the first request and keeps the connection.
pub struct Client {
    server: String,
    host: String,
    port: u16,
    /// Host and port, as the header has them.
    authority: String,
    /// The path before `/api`.
    base: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
    limit: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client whose requests each take at most `limit`, connecting included. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Settings`] naming what cannot be used.
    pub fn new(access: &Access, limit: Duration) -> Result<Self, Error> {
        let server = access.server.trim_end_matches('/');
        let unusable = |reason: &str| {
            let reason = format!("{server:?} {reason}; give https://HOST:PORT");
            Error::settings("server", reason)
        };
        let uri: Uri = server.parse().map_err(|_| unusable("is no URL"))?;
        let authority = uri.authority().ok_or_else(|| unusable("has no host"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("https") => {
                let name = access.server_name.clone().unwrap_or_else(|| host.clone());
                let name = ServerName::try_from(name).map_err(|_| unusable("has no valid host"))?;
                (Some((tls::connector(access)?, name)), 443)
            }
            Some("http") => (None, 80),
            _ => return Err(unusable("is neither https nor http")),
        };
        let token = access
            .token
            .as_ref()
            .map(|token| token.expose().trim_ascii());
        Ok(Self {
            server: server.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.as_str().to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
            host,
            tls,
            authorization: token.map(bearer).transpose()?,
            limit,
            connection: None,
        })
    }

    /// A pod.
    ///
    /// # Errors
    /// As every request: what cannot be reached, is denied, does not exist, or is no answer.
    pub async fn pod(&mut self, namespace: &str, name: &str) -> Result<Pod, Error> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}",
            segment(namespace),
            segment(name)
        );
        self.get(&path, format!("pod {namespace}/{name}")).await
    }

    /// A namespace.
    ///
    /// # Errors
    /// As [`Client::pod`].
    pub async fn namespace(&mut self, name: &str) -> Result<Namespace, Error> {
        let path = format!("/api/v1/namespaces/{}", segment(name));
        self.get(&path, format!("namespace {name}")).await
    }

    /// A node.
    ///
    /// # Errors
    /// As [`Client::pod`].
    pub async fn node(&mut self, name: &str) -> Result<Node, Error> {
        let path = format!("/api/v1/nodes/{}", segment(name));
        self.get(&path, format!("node {name}")).await
    }

    /// Whether the server answers us at all: its version, which every user may read.
    ///
    /// # Errors
    /// As [`Client::pod`].
    pub async fn ping(&mut self) -> Result<(), Error> {
        let version: Value = self.get("/version", "its version".to_owned()).await?;
        match version.get("gitVersion") {
            Some(_) => Ok(()),
            None => Err(Error::Answer {
                server: self.server.clone(),
                object: "its version".to_owned(),
                reason: "no version; is this an API server?".to_owned(),
                passing: false,
            }),
        }
    }

    /// A fresh token of a service account (authentication.k8s.io/v1 TokenRequest), valid for about so long; the
    /// server may give it a shorter life. Nothing is stored at the server.
    ///
    /// # Errors
    /// As [`Client::pod`].
    pub async fn token(
        &mut self,
        namespace: &str,
        account: &str,
        lifetime: Duration,
    ) -> Result<Token, Error> {
        let path = format!(
            "/api/v1/namespaces/{}/serviceaccounts/{}/token",
            segment(namespace),
            segment(account)
        );
        let request = json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "spec": {"expirationSeconds": lifetime.as_secs()},
        });
        let body = Bytes::from(request.to_string());
        let object = format!("a token of service account {namespace}/{account}");
        self.call(Method::POST, &path, body, object).await
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str, object: String) -> Result<T, Error> {
        self.call(Method::GET, path, Bytes::new(), object).await
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        object: String,
    ) -> Result<T, Error> {
        let answered = timeout(self.limit, self.exchange(method, path, body)).await;
        let (status, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => {
                return Err(Error::Unreachable {
                    server: self.server.clone(),
                    object,
                    reason,
                });
            }
            Err(_) => {
                return Err(Error::Deadline {
                    server: self.server.clone(),
                    object,
                    limit: self.limit,
                });
            }
        };
        if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
            return Err(self.refusal(status, &body, object));
        }
        serde_json::from_slice(&body).map_err(|error| Error::Answer {
            server: self.server.clone(),
            object,
            reason: format!("it cannot be read: {error}"),
            passing: false,
        })
    }

    /// Sends a request and reads the whole answer.
    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut connection = match self.connection.take() {
            Some(open) if !open.is_closed() => open,
            _ => self.connect().await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, JSON)
            .header(USER_AGENT, USER_AGENT_TEXT);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| causes(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        self.connection = Some(connection);
        Ok((status, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some((connector, name)) = &self.tls else {
            return serve(TokioIo::new(tcp)).await;
        };
        let stream = connector
            .connect(name.clone(), tcp)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        serve(TokioIo::new(stream)).await
    }

    /// The error for an answer that is not the object. The server explains itself in a `Status`.
    fn refusal(&self, status: StatusCode, body: &[u8], object: String) -> Error {
        let server = self.server.clone();
        let explained: Value = serde_json::from_slice(body).unwrap_or_default();
        let reason = match explained.get("message").and_then(Value::as_str) {
            Some(message) => format!("{message} ({status})"),
            None => status.to_string(),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied {
                server,
                object,
                reason,
            },
            StatusCode::NOT_FOUND => Error::Absent { server, object },
            _ => Error::Answer {
                server,
                object,
                reason,
                passing: status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            },
        }
    }
}

/// Speaks HTTP on a stream; the connection lives in a task of its own.
async fn serve<T>(stream: T) -> Result<SendRequest<Full<Bytes>>, String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(stream).await.map_err(|error| causes(&error))?;
    tokio::spawn(async move {
        // Its errors are those of the requests on it.
        let _ = connection.await;
    });
    Ok(sender)
}

fn bearer(token: &[u8]) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| Error::settings("token", "it holds bytes that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A name as one segment of a path.
fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    // Dots alone would be a step in the tree.
    if segment.bytes().all(|byte| byte == b'.') {
        return segment.replace('.', "%2E");
    }
    segment
}

/// An error with its causes; hyper's own text says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const USER_AGENT_TEXT: &str = concat!("margay/", env!("CARGO_PKG_VERSION"));
/// A pod is at most what etcd takes, 1.5 MB; this leaves room for spelling it out.
const MOST_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_segments() {
        for (name, path) in [
            ("web-0", "web-0"),
            ("../x", "..%2Fx"),
            ("..", "%2E%2E"),
            ("a?b", "a%3Fb"),
        ] {
            assert_eq!(segment(name), path);
        }
    }

    #[test]
    fn servers_are_checked() {
        for server in ["", "10.0.0.1:6443", "ftp://x", "https://", "https://a b"] {
            let access = Access {
                server: server.to_owned(),
                insecure: true,
                ..Access::default()
            };
            let error = Client::new(&access, Duration::from_secs(1)).unwrap_err();
            assert!(
                error.to_string().starts_with("server: "),
                "{server}: {error}"
            );
        }
        let access = Access {
            server: "https://[fd00::1]:6443/k8s/clusters/c1/".to_owned(),
            insecure: true,
            ..Access::default()
        };
        let client = Client::new(&access, Duration::from_secs(1)).unwrap();
        assert_eq!((client.host.as_str(), client.port), ("fd00::1", 6443));
        assert_eq!(client.base, "/k8s/clusters/c1");
    }

    #[test]
    fn tokens_must_be_tokens() {
        assert!(bearer(b"a\nb").is_err());
        assert!(bearer(b"a.b-c").unwrap().is_sensitive());
    }
}
