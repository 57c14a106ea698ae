//! Connections, and what is said on them.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, info, warn};

use super::counts::{Count, Counts};
use super::{ANSWER_TIMEOUT, CONNECTIONS_MAX, Call, Listener, REQUEST_OCTETS_MAX, page, tls};
use crate::manage::advice::ADVICE;
use crate::manage::api::{Request, Response};
use crate::manage::operations::{Method, OPERATIONS, Operation, Role};
use crate::manage::problem::{Kind, MEDIA_TYPE, Problem};
use crate::manage::{metrics, openapi, process};

/// Connections that are told at one time that there are too many.
const TURNED_AWAY_MAX: usize = 4;
/// How long such a connection may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";

/// What a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Control,
    Read,
    Metrics,
    Web,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) door: Door,
    /// Who it is, of one who has a certificate.
    pub(super) name: Option<Arc<str>>,
    /// Whether the page is there as well.
    pub(super) page: bool,
    /// The names under which a browser may ask; any, where the list is empty.
    pub(super) hosts: Arc<[String]>,
}

impl Caller {
    /// One who came in by a socket's file or to ask for `/metrics`.
    pub(super) fn at(door: Door) -> Caller {
        Caller { door, name: None, page: false, hosts: Arc::new([]) }
    }

    /// Who asks with a browser of this machine. Others may have names that lead here: a page of theirs is not to read ours.
    pub(super) fn browser(own: SocketAddr) -> Caller {
        let mut hosts = vec![own.to_string(), format!("localhost:{}", own.port())];
        if own.port() == 80 {
            // Which browsers do not say.
            hosts.extend(hosts.clone().iter().filter_map(|host| host.strip_suffix(":80")).map(str::to_owned));
        }
        Caller { page: true, hosts: hosts.into(), ..Caller::at(Door::Web) }
    }

    /// Who comes over TLS; what the role is, is known after the handshake.
    pub(super) fn remote(page: bool) -> Caller {
        Caller { page, ..Caller::at(Door::Read) }
    }
}

/// What all connections share.
pub(super) struct Shared {
    engine: Sender<Call>,
    pub(super) counts: Counts,
    pub(super) patience: Duration,
    turned_away: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(engine: Sender<Call>, patience: Duration) -> Shared {
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        Shared { engine, counts: Counts::default(), patience, turned_away }
    }
}

type Answer = hyper::Response<Full<Bytes>>;

/// When a connection has to end because of something else than what is said on it.
pub(super) type Retired = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts connections at a door from now on.
pub(super) fn listen(caller: Caller, listener: Listener, shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    match listener {
        Listener::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    admit(&caller, accepted, &places, &shared).await;
                }
            });
        }
        Listener::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(async move {
                let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    admit(&caller, accepted, &places, &shared).await;
                }
            });
        }
        Listener::Tls(listener, current) => {
            tokio::spawn(tls::serve(TcpListener::from_std(listener)?, caller, current, shared));
        }
    }
    Ok(())
}

async fn admit<S>(caller: &Caller, accepted: io::Result<S>, places: &Arc<Semaphore>, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    if let Some(stream) = arrived(accepted, shared).await {
        seat(caller.clone(), stream, places, shared, Box::pin(std::future::pending()));
    }
}

/// A connection that came, counted.
pub(super) async fn arrived<S>(accepted: io::Result<S>, shared: &Shared) -> Option<S> {
    match accepted {
        Ok(stream) => {
            shared.counts.add(Count::Connections);
            Some(stream)
        }
        Err(error) => {
            // Out of descriptors, mostly; without a pause this would be a busy loop.
            warn!(%error, "a management connection was not accepted");
            sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Gives a connection one of the door's places, or sends it away.
pub(super) fn seat<S>(caller: Caller, stream: S, places: &Arc<Semaphore>, shared: &Arc<Shared>, retired: Retired)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        tokio::spawn(converse(caller, stream, place, Arc::clone(shared), retired));
        return;
    }
    shared.counts.add(Count::TurnedAway);
    // Beyond that many they are closed without a word.
    if let Ok(place) = Arc::clone(&shared.turned_away).try_acquire_owned() {
        tokio::spawn(turn_away(stream, place));
    }
}

/// Requests and answers, until the other side has no more or is too slow, or is not to be here any more.
async fn converse<S>(caller: Caller, stream: S, place: OwnedSemaphorePermit, shared: Arc<Shared>, mut retired: Retired)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(shared.patience));
    let own = Arc::clone(&shared);
    let caller = Arc::new(caller);
    let service = service_fn(move |request| answer(Arc::clone(&caller), request, Arc::clone(&own)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // From the moment the connection is idle, so that it also ends one that only stays.
        .header_read_timeout(shared.patience)
        .max_buf_size(REQUEST_OCTETS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    let mut leaving = false;
    let served = poll_fn(|context| {
        if !leaving && retired.as_mut().poll(context).is_ready() {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    });
    if let Err(error) = served.await {
        let slow = error.is_timeout() || is_timeout(&error);
        if slow {
            shared.counts.add(Count::TooSlow);
        } else if error.is_parse_too_large() {
            shared.counts.add(Count::TooLong);
        } else if error.is_parse() {
            shared.counts.add(Count::NotUnderstood);
        }
        debug!(%error, "a management connection ended");
    }
    drop(place);
}

/// Whether an error goes back to a stream that did not take its answer.
fn is_timeout(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut)
}

/// Says that there are too many. Whatever was asked is not looked at.
async fn turn_away<S: AsyncRead + AsyncWrite>(stream: S, place: OwnedSemaphorePermit) {
    let service = service_fn(|_| async {
        let mut answer = refusal(Kind::Busy.because(format!("{CONNECTIONS_MAX} connections are open already")));
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Ok::<_, Infallible>(answer)
    });
    let stream: Pin<Box<S>> = Box::pin(stream);
    let _ = timeout(FAREWELL, http1::Builder::new().serve_connection(TokioIo::new(stream), service)).await;
    drop(place);
}

async fn answer(
    caller: Arc<Caller>,
    request: hyper::Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Answer, Infallible> {
    let mut answer = match reply(&caller, request, &shared).await {
        Ok(answer) => answer,
        Err(problem) => {
            let count = match problem.status {
                400 | 404 | 405 | 421 => Count::NotUnderstood,
                403 => Count::ReadOnly,
                408 => Count::TooSlow,
                413 => Count::TooLong,
                _ => Count::NoEngine,
            };
            shared.counts.add(count);
            refusal(problem)
        }
    };
    page::guard(answer.headers_mut());
    Ok(answer)
}

async fn reply(caller: &Caller, request: hyper::Request<Incoming>, shared: &Shared) -> Result<Answer, Problem> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let is_get = head.method == hyper::Method::GET;
    if caller.door == Door::Metrics && path != "/metrics" {
        return Err(Kind::NotFound.because("only /metrics is told here"));
    }
    called_by_its_name(caller, &head.headers)?;
    if caller.page
        && is_get
        && let Some((media_type, text)) = page::file(path)
    {
        shared.counts.add(Count::Requests);
        return Ok(told(200, media_type, text.as_bytes().to_vec()));
    }
    if caller.door == Door::Web && !page::asks(path) {
        return Err(Kind::NotFound.because("only the page and what it asks are told here"));
    }
    match path {
        "/openapi.json" if is_get => {
            shared.counts.add(Count::Requests);
            return made(JSON, serde_json::to_vec(&openapi::document()));
        }
        "/metrics" if is_get => {
            shared.counts.add(Count::Requests);
            return figures(shared).await;
        }
        _ => {}
    }
    let operation = find(path, &head.method)?;
    if operation.role == Role::Operate {
        may_operate(caller, operation, &head.headers)?;
    }
    let body = read(body, shared.patience).await?;
    shared.counts.add(Count::Requests);
    let given = match operation.method {
        Method::Get => head.uri.query().unwrap_or_default().as_bytes(),
        Method::Post => &body,
    };
    let request = (operation.parse)(given).map_err(|reason| Kind::NotUnderstood.because(reason))?;
    let mut response = ask(shared, request).await?;
    if let Response::Counters(view) = &mut response {
        for (name, help, value) in shared.counts.iter() {
            view.counters.insert(name.to_owned(), value);
            view.descriptions.insert(name.to_owned(), help.to_owned());
        }
        view.advice = ADVICE.iter().map(|(name, advice)| ((*name).to_owned(), (*advice).to_owned())).collect();
    }
    match response {
        Response::Error(error) => {
            shared.counts.add(Count::Refused);
            Ok(refusal(error.into()))
        }
        response => match (operation.encode)(&response) {
            Some(octets) => made(JSON, octets),
            None => Err(Kind::Broken.because("the engine answered another question")),
        },
    }
}

/// That whoever asks for the page knows it by a name of this machine (a name of somebody else's may lead here just as well).
fn called_by_its_name(caller: &Caller, headers: &HeaderMap) -> Result<(), Problem> {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if caller.hosts.is_empty() || caller.hosts.iter().any(|host| host.eq_ignore_ascii_case(named)) {
        return Ok(());
    }
    Err(Kind::WrongHost.because(format!("ask for {}", caller.hosts.join(" or "))))
}

/// That an order comes from one who may give it, and not from a page that his browser shows.
fn may_operate(caller: &Caller, operation: &Operation, headers: &HeaderMap) -> Result<(), Problem> {
    let (method, path) = (operation.method.name(), operation.path);
    if caller.door != Door::Control {
        let words =
            format!("{method} {path} is for operators; ask by box.control_socket or with an operator's certificate");
        return Err(Kind::ReadOnly.because(words));
    }
    // A browser shows its certificate to us whatever page made it ask, and says these of itself.
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(Kind::FromBrowser.because(format!("{method} {path}: orders are not taken from browsers")));
    }
    if let Some(name) = &caller.name {
        info!(operator = %name, method, path, "an order over TLS");
    }
    Ok(())
}

/// What monitoring is told.
async fn figures(shared: &Shared) -> Result<Answer, Problem> {
    let broken = |text: &str| Kind::Broken.because(text);
    let Response::Metrics(view) = ask(shared, Request::Metrics).await? else {
        return Err(broken("the engine answered another question"));
    };
    let text = metrics::text(*view, shared.counts.iter().collect(), process::figures());
    let text = text.map_err(|_| broken("the figures cannot be written"))?;
    Ok(told(200, metrics::MEDIA_TYPE, text.into_bytes()))
}

/// The operation at a place.
fn find(path: &str, method: &hyper::Method) -> Result<&'static Operation, Problem> {
    let mut here = OPERATIONS.iter().filter(|operation| operation.path == path).peekable();
    let known = here.peek().map(|operation| operation.method.name());
    let found = here.find(|operation| operation.method.name() == method.as_str());
    match (found, known) {
        (Some(operation), _) => Ok(operation),
        (None, Some(known)) => Err(Kind::WrongMethod.because(format!("{path} is asked for by {known}"))),
        (None, None) => {
            Err(Kind::NotFound.because(format!("{path} is no part of the API, which /openapi.json describes")))
        }
    }
}

/// The body, if it is short and comes in time.
async fn read(body: Incoming, patience: Duration) -> Result<Bytes, Problem> {
    match timeout(patience, Limited::new(body, REQUEST_OCTETS_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Kind::TooLong.because(format!("a body of more than {REQUEST_OCTETS_MAX} octets")))
        }
        Ok(Err(error)) => Err(Kind::NotUnderstood.because(format!("body: {error}"))),
        Err(_) => Err(Kind::TooSlow.because(format!("the body took more than {} s", patience.as_secs()))),
    }
}

/// Asks the engine.
async fn ask(shared: &Shared, request: Request) -> Result<Response, Problem> {
    let silent = |text: &str| Kind::NoEngine.because(text);
    let (reply, answer) = oneshot::channel();
    match shared.engine.try_send(Call { request, reply }) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(silent("the engine is too busy to be asked")),
        Err(TrySendError::Disconnected(_)) => return Err(silent("the engine has stopped")),
    }
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(silent("the engine has stopped")),
        Err(_) => Err(silent("the engine did not answer in time")),
    }
}

fn made(media_type: &'static str, octets: serde_json::Result<Vec<u8>>) -> Result<Answer, Problem> {
    let octets = octets.map_err(|error| Kind::Broken.because(error.to_string()))?;
    Ok(told(200, media_type, octets))
}

fn refusal(problem: Problem) -> Answer {
    let octets = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answer = told(problem.status, MEDIA_TYPE, octets);
    if problem.status == 405 {
        // RFC 9110 §15.5.6 wants it; the words say which one it is here.
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    answer
}

fn told(status: u16, media_type: &'static str, octets: Vec<u8>) -> Answer {
    let mut answer = hyper::Response::new(Full::new(Bytes::from(octets)));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_may_leave_out_the_port_it_takes_by_itself() {
        let hosts = |own: &str| Caller::browser(own.parse().unwrap()).hosts.to_vec();
        assert_eq!(hosts("[::1]:8080"), ["[::1]:8080", "localhost:8080"]);
        assert_eq!(hosts("[::1]:80"), ["[::1]:80", "localhost:80", "[::1]", "localhost"]);
    }
}
