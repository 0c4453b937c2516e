//! TLS towards an API server.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::access::{Access, Secret};
use crate::error::Error;

/// A connector for what the settings say.
pub(crate) fn connector(access: &Access) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &access.authority {
        _ if access.insecure => Arc::new(AnyServer(Arc::clone(&provider))),
        Some(pem) => verifier(pem, &provider)?,
        None => {
            return Err(Error::settings(
                "certificate-authority",
                format!(
                    "it is missing, and without it {} cannot be trusted; give the certificate of the \
                     cluster's authority",
                    access.server
                ),
            ));
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::settings("TLS", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&access.certificate, &access.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(chain("client-certificate", certificate)?, private(key)?)
            .map_err(|error| Error::settings("client-certificate", error.to_string()))?,
        (Some(_), None) => return Err(alone("client-key", "client-certificate")),
        (None, Some(_)) => return Err(alone("client-certificate", "client-key")),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn verifier(
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let unusable = |error: String| Error::settings("certificate-authority", error);
    let mut roots = RootCertStore::empty();
    for certificate in chain("certificate-authority", pem)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))
}

fn chain(place: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if chain.is_empty() => {
            Err(Error::settings(place, "it holds no certificate in PEM"))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(Error::settings(place, format!("it is no PEM: {error}"))),
    }
}

fn private(key: &Secret) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|error| Error::settings("client-key", format!("it is no key in PEM: {error}")))
}

fn alone(missing: &str, given: &str) -> Error {
    Error::settings(
        missing,
        format!("it is missing, though {given} is given; give both or neither"),
    )
}

/// `insecure-skip-tls-verify`: whoever has a key for its certificate is taken for the server.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let access = |set: fn(&mut Access)| {
            let mut access = Access {
                server: "https://10.0.0.1:6443".to_owned(),
                insecure: true,
                ..Access::default()
            };
            set(&mut access);
            access
        };
        for (access, word) in [
            (
                access(|it| it.insecure = false),
                "certificate-authority: it is missing",
            ),
            (
                access(|it| (it.insecure, it.authority) = (false, Some(b"x".to_vec()))),
                "certificate-authority: it holds no certificate",
            ),
            (
                access(|it| it.certificate = Some(Vec::new())),
                "client-key: it is missing",
            ),
            (
                access(|it| it.key = Some(Secret::new("k"))),
                "client-certificate: it is missing",
            ),
        ] {
            let Err(error) = connector(&access) else {
                panic!("{access:?} was accepted");
            };
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(connector(&access(|_| ())).is_ok());
    }
}
