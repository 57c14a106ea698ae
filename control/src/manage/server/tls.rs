//! Connections over TLS: a handshake within bounds of its own, then a place at the door of the role.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::counts::Count;
use super::http::{Caller, Door, Retired, Shared, arrived, seat};
use super::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
use crate::config::tls::{ClientRole, Tls};

/// Accepts connections from now on. Places are taken after the handshake, so that who has no certificate keeps out nobody who
/// has one; those at the handshake have as many places as there are, and little time.
pub(super) async fn serve(
    listener: TcpListener,
    caller: Caller,
    current: watch::Receiver<Arc<Tls>>,
    shared: Arc<Shared>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let places = Places {
        readers: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        operators: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    loop {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        let Some(stream) = arrived(accepted, &shared).await else { continue };
        let Ok(place) = Arc::clone(&handshakes).try_acquire_owned() else {
            shared.counts.add(Count::TurnedAway);
            continue;
        };
        let (places, caller, shared) = (places.clone(), caller.clone(), Arc::clone(&shared));
        let mut current = current.clone();
        tokio::spawn(async move {
            let tls = Arc::clone(&current.borrow_and_update());
            let shaken = shake(stream, &tls, &shared).await;
            drop(place);
            let Some((stream, role, name)) = shaken else { return };
            // Those whose files are others now end with what they are at; so do those of a server that ends.
            let retired: Retired = Box::pin(async move {
                let _ = current.changed().await;
            });
            let (door, places) = match role {
                ClientRole::Operator => (Door::Control, &places.operators),
                ClientRole::Reader => (Door::Read, &places.readers),
            };
            seat(Caller { door, name: Some(name), ..caller }, stream, places, &shared, retired);
        });
    }
}

/// Places for those whose handshake is over.
#[derive(Clone)]
struct Places {
    readers: Arc<Semaphore>,
    operators: Arc<Semaphore>,
}

/// The handshake, and who it was.
async fn shake(stream: TcpStream, tls: &Tls, shared: &Shared) -> Option<(TlsStream<TcpStream>, ClientRole, Arc<str>)> {
    let patience = HANDSHAKE_TIMEOUT.min(shared.patience);
    let stream = match timeout(patience, TlsAcceptor::from(tls.server()).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            shared.counts.add(Count::NoHandshake);
            debug!(%error, "a handshake over TLS failed");
            return None;
        }
        Err(_) => {
            shared.counts.add(Count::TooSlow);
            return None;
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let known = tls.role(chain).zip(chain.first().map(fingerprint));
    if known.is_none() {
        // It expired between the handshake and now.
        shared.counts.add(Count::NoHandshake);
    }
    known.map(|(role, name)| (stream, role, name))
}

/// What tells one certificate from all others, as `openssl x509 -fingerprint -sha256` does, without colons.
fn fingerprint(certificate: &CertificateDer<'_>) -> Arc<str> {
    digest(&SHA256, certificate).as_ref().iter().map(|octet| format!("{octet:02x}")).collect::<String>().into()
}
