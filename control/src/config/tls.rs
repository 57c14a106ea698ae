//! The files that management over TLS stands on: our certificate, and whose certificates let somebody in.
//!
//! A client's role is that of the file with the authority that signed its certificate: one file for those who may look, one
//! for operators. No authority may stand in both, nor may one for reading be signed by one for operators, since its clients
//! would be operators too. TLS 1.3 alone; nothing of a session is kept for a next one, so that each connection is judged by
//! the files as they were read last.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::x509::{X509, X509VerifyResult};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::problem::Problem;

/// The only protocol above TLS.
const HTTP: &[u8] = b"http/1.1";

/// A certificate that is good for fewer days is warned about.
const DAYS_ADVISED: i32 = 14;

/// Where the daemon can be asked over TLS, and the files for it (`manage.listen` and what goes with it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Address and port.
    pub listen: SocketAddr,
    /// Our certificate, and those between it and an authority the clients know.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that sign certificates of those who may look.
    pub readers: Option<PathBuf>,
    /// The authorities that sign certificates of operators.
    pub operators: Option<PathBuf>,
}

/// What a certificate lets somebody do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRole {
    /// Ask.
    Reader,
    /// Ask and give orders.
    Operator,
}

/// The files, read and found good.
#[derive(Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    clients: Arc<Clients>,
    /// Days that our certificate is good for yet; fewer than none once it has expired.
    days: i32,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A [`Problem`] that names the file.
    pub fn load(files: &TlsFiles) -> Result<Tls, Problem> {
        let provider = Arc::new(ring::default_provider());
        let readers = files.readers.as_deref().map(authorities).transpose()?;
        let operators = files.operators.as_deref().map(authorities).transpose()?;
        if let (Some(readers), Some(operators), Some(file)) = (&readers, &operators, &files.readers) {
            keep_apart(readers, operators).map_err(|text| Problem::of_file(file, text))?;
        }
        let verifier = |list: Option<Vec<CertificateDer<'static>>>, file: &Option<PathBuf>| {
            let (Some(list), Some(file)) = (list, file) else { return Ok(None) };
            let wrong = |text: String| Problem::of_file(file, text);
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(list, file)?), provider.clone());
            builder.build().map(Some).map_err(|error| wrong(error.to_string()))
        };
        let readers = verifier(readers, &files.readers)?;
        let operators = verifier(operators, &files.operators)?;
        let both = [&readers, &operators].into_iter().flatten();
        let hints = both.flat_map(|it| it.root_hint_subjects().to_vec()).collect();
        let algorithms = provider.signature_verification_algorithms;
        let clients = Arc::new(Clients { readers, operators, hints, algorithms });
        let (chain, key) = own(&files.certificate, &files.key)?;
        let days = days_left(&chain).map_err(|error| Problem::of_file(&files.certificate, error.to_string()))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Problem::of_file(&files.certificate, error.to_string()))?;
        let mut server = builder
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain, key)
            .map_err(|error| Problem::of_file(&files.key, misfit(&error, &files.certificate)))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Tls { server: Arc::new(server), clients, days })
    }

    /// What is to be known of the certificate before clients find out.
    pub(super) fn warning(&self) -> Option<String> {
        match self.days {
            days if days < 0 => Some("has expired: no client believes it any more".to_owned()),
            days if days < DAYS_ADVISED => Some(format!("expires in {days} days")),
            _ => None,
        }
    }

    /// For the server's end of connections.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// What a client with this chain of certificates may do; nothing if it is none of ours.
    pub fn role(&self, chain: &[CertificateDer<'_>]) -> Option<ClientRole> {
        let (own, others) = chain.split_first()?;
        self.clients.role(own, others, UnixTime::now()).ok()
    }
}

/// For the client's end: who signs the server's certificate, and the client's own certificate and key.
///
/// # Errors
/// A [`Problem`] that names the file.
pub fn client(authority: &Path, certificate: &Path, key: &Path) -> Result<Arc<ClientConfig>, Problem> {
    let roots = roots(authorities(authority)?, authority)?;
    let (chain, secret) = own(certificate, key)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Problem::of_file(certificate, error.to_string()))?;
    let mut client = builder
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, secret)
        .map_err(|error| Problem::of_file(key, misfit(&error, certificate)))?;
    client.alpn_protocols = vec![HTTP.to_vec()];
    Ok(Arc::new(client))
}

/// Who is let in.
#[derive(Debug)]
struct Clients {
    readers: Option<Arc<dyn ClientCertVerifier>>,
    operators: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    fn role(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientRole, Error> {
        let mut refused = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for (role, verifier) in [(ClientRole::Operator, &self.operators), (ClientRole::Reader, &self.readers)] {
            match verifier.as_ref().map(|it| it.verify_client_cert(own, others, now)) {
                Some(Ok(_)) => return Ok(role),
                // That it was somebody's of ours and has expired says more than that another did not sign it.
                Some(Err(error)) if error != Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    refused = error;
                }
                _ => {}
            }
        }
        Err(refused)
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.role(own, others, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The certificates in a file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let wrong = |text: String| Problem::of_file(file, text);
    let pem = fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match list {
        Ok(list) if list.is_empty() => Err(wrong("holds no certificate (PEM)".into())),
        Ok(list) => Ok(list),
        Err(error) => Err(wrong(format!("is no PEM: {error}"))),
    }
}

/// Certificates of authorities.
pub(super) fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let list = certificates(file)?;
    for certificate in &list {
        X509::from_der(certificate)
            .map_err(|error| Problem::of_file(file, format!("holds a certificate that cannot be read: {error}")))?;
    }
    Ok(list)
}

pub(super) fn roots(list: Vec<CertificateDer<'static>>, file: &Path) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in list {
        let wrong = |error: Error| Problem::of_file(file, format!("holds a certificate of no authority: {error}"));
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

/// A certificate with its chain, and its key, which nobody but its owner (and the file's group) may be able to read.
pub(super) fn own(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
    let chain = certificates(certificate)?;
    let wrong = |text: String| Problem::of_file(key, text);
    let unread = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
    let mode = fs::metadata(key).map_err(unread)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(wrong(format!("mode {mode:04o} lets everybody read the key; chmod 600 {}", key.display())));
    }
    let pem = fs::read(key).map_err(unread)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong("holds no private key (PEM)".into()))?;
    Ok((chain, key))
}

/// Days until the first of a chain expires.
fn days_left(chain: &[CertificateDer<'_>]) -> Result<i32, ErrorStack> {
    let now = Asn1Time::days_from_now(0)?;
    let mut least = i32::MAX;
    for certificate in chain {
        let left = now.diff(X509::from_der(certificate)?.not_after())?;
        // Whole days, rounded towards the past.
        least = least.min(left.days - i32::from(left.secs < 0));
    }
    Ok(least)
}

pub(super) fn misfit(error: &Error, certificate: &Path) -> String {
    match error {
        Error::InconsistentKeys(_) => format!("is not the key of {}", certificate.display()),
        other => format!("does not go with {}: {other}", certificate.display()),
    }
}

/// That no authority for reading makes operators.
fn keep_apart(readers: &[CertificateDer<'_>], operators: &[CertificateDer<'_>]) -> Result<(), &'static str> {
    let read = |list: &[CertificateDer<'_>]| -> Vec<X509> {
        list.iter().filter_map(|certificate| X509::from_der(certificate).ok()).collect()
    };
    let operators = read(operators);
    for reader in read(readers) {
        let key = |it: &X509| it.public_key().and_then(|key| key.public_key_to_der()).ok();
        if operators.iter().any(|operator| key(operator).is_some() && key(operator) == key(&reader)) {
            return Err(
                "names an authority that is in manage.clients_operator_ca as well: a client would have both roles",
            );
        }
        if operators.iter().any(|operator| operator.issued(&reader) == X509VerifyResult::OK) {
            return Err(
                "names an authority that one of manage.clients_operator_ca signed: its clients would be operators",
            );
        }
    }
    Ok(())
}
