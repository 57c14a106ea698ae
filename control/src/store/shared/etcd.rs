//! `etcd`, version 3.4 and later, by the JSON of its gRPC gateway over HTTP/1.1 and TLS.
//!
//! Both ends prove who they are: the cluster by a certificate for its name from an authority that is named here, we by a
//! certificate of our own, and by a user's password besides if `etcd` wants that. TLS 1.3 alone, so that whoever is in
//! between reads and changes nothing; there is no way without.
//!
//! A client blocks its thread. It goes from one member of the cluster to the next until one answers, and each has
//! `PATIENCE`; who asks twice because an answer was lost does no harm, since every write names what it is based on.

mod lease;
mod renewal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use openssl::base64;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{self, Problem};
pub use renewal::Renewal;

use super::{Cluster, ClusterError, Done, Events, ROWS_MAX, Row, Snapshot, Transaction};

/// How long one member of the cluster may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rows of one answer when all are read.
const ROWS_PER_PAGE: usize = 512;
/// Longest answer in octets: rows have a few thousand, the largest of them not many more than `etcd` takes (1.5 MiB).
const ANSWER_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// What a row says here that is no text; nothing that a row means.
const NO_TEXT: &str = "(no text)";

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "https://[{}]:{}", self.host, self.port),
            false => write!(out, "https://{}:{}", self.host, self.port),
        }
    }
}

/// Where a cluster is and who we are there.
#[derive(Clone)]
pub struct Settings {
    /// Its members; at least one.
    pub endpoints: Vec<Endpoint>,
    /// What every key begins with.
    pub prefix: String,
    /// Whom we trust, and our certificate.
    pub tls: Arc<ClientConfig>,
    /// Name and password, if `etcd` asks for them.
    pub user: Option<(String, String)>,
    /// What takes the place of the two while conversations go on.
    pub renewal: Renewal,
}

impl Settings {
    /// What a configuration says, with its files read.
    ///
    /// # Errors
    /// A [`Problem`] that names the file.
    pub fn load(cluster: &config::Cluster) -> Result<Settings, Problem> {
        let access = config::cluster::Access::load(cluster)?;
        let renewal = Renewal::knowing(access.clone());
        let config::cluster::Access { tls, user, .. } = access;
        let endpoints = cluster.endpoints.iter().map(|(host, port)| Endpoint { host: host.clone(), port: *port });
        Ok(Settings { endpoints: endpoints.collect(), prefix: cluster.prefix.clone(), tls, user, renewal })
    }

    /// What gives other files to all conversations that begin with these settings.
    pub fn renewal(&self) -> Renewal {
        self.renewal.clone()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        let mut shown = out.debug_struct("Settings");
        shown.field("endpoints", &self.endpoints).field("prefix", &self.prefix).field("user", &user);
        shown.finish_non_exhaustive()
    }
}

/// A conversation with the cluster.
pub struct Client {
    settings: Settings,
    runtime: Runtime,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// The member it is with, or with which to begin.
    at: usize,
    /// What says that the password was right.
    token: Option<String>,
    /// The number of what was taken of [`Settings::renewal`].
    renewed: u64,
    /// Whether something was answered on the connection, so that it is older than the question.
    used: bool,
}

/// What is written from a revision on, as it comes.
pub struct Watch {
    body: Incoming,
    /// What came of a line that is not complete.
    line: Vec<u8>,
    /// Lines that were not looked at.
    ready: std::collections::VecDeque<Vec<u8>>,
}

impl Client {
    /// Nothing is opened before it is needed.
    pub fn new(settings: Settings) -> std::io::Result<Client> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Client { settings, runtime, connection: None, at: 0, token: None, renewed: 0, used: false })
    }

    fn full(&self, key: &str) -> String {
        base64::encode_block(format!("{}{key}", self.settings.prefix).as_bytes())
    }

    /// The first key that does not begin with the prefix any more.
    fn end(&self) -> String {
        let mut octets = self.settings.prefix.clone().into_bytes();
        if let Some(last) = octets.last_mut() {
            *last += 1;
        }
        base64::encode_block(&octets)
    }

    fn own(&self, row: &Value) -> Result<Row, ClusterError> {
        let strange = || ClusterError::Strange("a row that is none of ours".into());
        let key = octets_of(&row["key"])?;
        let key = key.strip_prefix(self.settings.prefix.as_bytes()).ok_or_else(strange)?;
        // What is no text was not written by a box. It is a row all the same, which says nothing that could be understood.
        let key = String::from_utf8_lossy(key).into_owned();
        let value = String::from_utf8(octets_of(&row["value"])?).unwrap_or_else(|_| NO_TEXT.to_owned());
        Ok(Row { key, value, revision: number(&row["mod_revision"])? })
    }

    /// Everything there is at one moment.
    pub fn read_all(&mut self) -> Result<Snapshot, ClusterError> {
        self.read_all_and(&mut || {})
    }

    /// The same, with something else to be done every few hundred rows: a large store takes long.
    pub fn read_all_and(&mut self, meanwhile: &mut dyn FnMut()) -> Result<Snapshot, ClusterError> {
        let mut snapshot = Snapshot::default();
        let mut from = self.full("");
        loop {
            let mut asked = json!({ "key": from, "range_end": self.end(), "limit": ROWS_PER_PAGE });
            if snapshot.revision > 0 {
                asked["revision"] = json!(snapshot.revision.to_string());
            }
            let answer = self.call("/v3/kv/range", &asked)?;
            if snapshot.revision == 0 {
                snapshot.revision = number(&answer["header"]["revision"])?;
            }
            let rows = list(&answer["kvs"]);
            for row in rows {
                snapshot.rows.push(self.own(row)?);
            }
            if snapshot.rows.len() > ROWS_MAX {
                return Err(ClusterError::Strange(format!("more than {ROWS_MAX} rows")));
            }
            match rows.last() {
                // The next key there can be.
                Some(last) if answer["more"] == true => {
                    let mut next = octets_of(&last["key"])?;
                    next.push(0);
                    from = base64::encode_block(&next);
                    meanwhile();
                }
                _ => break,
            }
        }
        // As keys are as text.
        snapshot.rows.sort_by(|one, other| one.key.cmp(&other.key));
        snapshot.rows.dedup_by(|one, other| one.key == other.key);
        Ok(snapshot)
    }

    /// The revision of the cluster as most of its members know it, and that of the row written last of ours.
    pub fn newest(&mut self) -> Result<(u64, u64), ClusterError> {
        let asked = json!({
            "key": self.full(""), "range_end": self.end(), "limit": 1, "sort_order": "DESCEND", "sort_target": "MOD",
            "keys_only": true,
        });
        let answer = self.call("/v3/kv/range", &asked)?;
        let last = list(&answer["kvs"]).first().map_or(Ok(0), |row| number(&row["mod_revision"]))?;
        Ok((number(&answer["header"]["revision"])?, last))
    }

    /// What is written from now on: with all of this revision and later.
    pub fn watch(&mut self, from: u64) -> Result<Watch, ClusterError> {
        let asked = json!({ "create_request": {
            "key": self.full(""), "range_end": self.end(), "start_revision": from.to_string(),
        } });
        let answer = self.ask("/v3/watch", &asked)?;
        // It is used up by this, for as long as the watch lives.
        self.connection = None;
        let mut watch = Watch { body: answer.into_body(), line: Vec::new(), ready: Default::default() };
        // The first line says that it begins.
        self.next(&mut watch, PATIENCE)?;
        Ok(watch)
    }

    /// What comes next, if something comes in that time.
    pub fn next(&mut self, watch: &mut Watch, time: Duration) -> Result<Option<Events>, ClusterError> {
        let Some(line) = self.runtime.block_on(async { timeout(time, watch.line()).await }).ok().transpose()? else {
            return Ok(None);
        };
        let said: Value = serde_json::from_slice(&line).map_err(|error| ClusterError::Strange(error.to_string()))?;
        if said["error"] != Value::Null {
            return Err(ClusterError::Refused(words(&said["error"])));
        }
        let said = &said["result"];
        if said["compact_revision"] != Value::Null && number(&said["compact_revision"])? > 0 {
            return Err(ClusterError::Forgotten);
        }
        if said["canceled"] == true {
            return Err(ClusterError::Refused(words(&said["cancel_reason"])));
        }
        let mut events = Events { revision: number(&said["header"]["revision"])?, rows: Vec::new() };
        for event in list(&said["events"]) {
            let row = self.own(&event["kv"])?;
            let value = (event["type"] != "DELETE").then_some(row.value);
            events.rows.push((row.key, value, row.revision));
        }
        // The header may be of a later moment than the last event; only what was told is known.
        if let Some(last) = events.rows.iter().map(|(.., revision)| *revision).max() {
            events.revision = last;
        }
        Ok(Some(events))
    }

    /// Asks, and waits for the whole answer.
    fn call(&mut self, place: &str, asked: &Value) -> Result<Value, ClusterError> {
        let mut tried = 0;
        loop {
            let answer = self.ask(place, asked).and_then(|answer| {
                let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect();
                match self.runtime.block_on(async { timeout(PATIENCE, body).await }) {
                    Ok(Ok(body)) => Ok(body.to_bytes()),
                    Ok(Err(error)) => Err(self.unreachable(error)),
                    Err(_) => Err(self.unreachable("its answer does not come to an end")),
                }
            });
            match answer {
                Ok(octets) => {
                    self.used = true;
                    return serde_json::from_slice(&octets).map_err(|error| ClusterError::Strange(error.to_string()));
                }
                Err(error @ ClusterError::Unreachable(_)) => {
                    // A connection that nobody used for a while may have died of that. It says nothing about the member.
                    tried += usize::from(!std::mem::take(&mut self.used));
                    (self.connection, self.at) = (None, self.at + 1);
                    if tried >= self.settings.endpoints.len() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks one member, for which a connection is opened if there is none. Its answer begins well.
    fn ask(&mut self, place: &str, asked: &Value) -> Result<hyper::Response<Incoming>, ClusterError> {
        for attempt in 0..2 {
            self.take_newest();
            if self.token.is_none() && self.settings.user.is_some() {
                self.authenticate()?;
            }
            let answer = self.send(place, asked)?;
            let status = answer.status().as_u16();
            if status == 200 {
                return Ok(answer);
            }
            let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect();
            let body = self.runtime.block_on(async { timeout(PATIENCE, body).await });
            let octets = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
            let text = reason_in(&octets);
            // A token ends some minutes after it was used last.
            if text.contains("invalid auth token") && attempt == 0 && self.token.take().is_some() {
                continue;
            }
            return Err(match status {
                // What a member says that has lost the others, or its leader.
                500..=599 => self.unreachable(text),
                _ if text.contains("compacted") => ClusterError::Forgotten,
                _ => ClusterError::Refused(text),
            });
        }
        Err(ClusterError::Refused("a token is not accepted that was given a moment ago".into()))
    }

    fn authenticate(&mut self) -> Result<(), ClusterError> {
        let Some((name, password)) = self.settings.user.clone() else { return Ok(()) };
        let answer = self.send("/v3/auth/authenticate", &json!({ "name": name, "password": password }))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect();
        let body = self.runtime.block_on(async { timeout(PATIENCE, body).await });
        let octets = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        let said: Value = serde_json::from_slice(&octets).unwrap_or_default();
        match said["token"].as_str() {
            Some(token) if status == 200 => {
                self.token = Some(token.to_owned());
                Ok(())
            }
            _ if status >= 500 => Err(self.unreachable(reason_in(&octets))),
            _ => Err(ClusterError::Refused(format!("user {name}: {}", reason_in(&octets)))),
        }
    }

    fn send(&mut self, place: &str, asked: &Value) -> Result<hyper::Response<Incoming>, ClusterError> {
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.used = false;
            self.connection = Some(self.connect()?);
        }
        let endpoint = self.endpoint().to_string();
        let host = endpoint.trim_start_matches("https://");
        let mut request = hyper::Request::post(place).header(HOST, host).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(asked.to_string())));
        let request = request.map_err(|error| ClusterError::Strange(error.to_string()))?;
        let Some(sender) = &mut self.connection else { return Err(self.unreachable("no connection")) };
        let answered = self.runtime.block_on(async { timeout(PATIENCE, sender.send_request(request)).await });
        let wrong = |reason: String| ClusterError::Unreachable(format!("{endpoint}: {reason}"));
        let answer = match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(wrong(in_full(&error))),
            Err(_) => Err(wrong(format!("no answer in {} s", PATIENCE.as_secs()))),
        };
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, ClusterError> {
        let endpoint = self.endpoint().clone();
        let wrong = |reason: String| ClusterError::Unreachable(format!("{endpoint}: {reason}"));
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| wrong(error.to_string()))?;
        let tls = TlsConnector::from(Arc::clone(&self.settings.tls));
        let connecting = async {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
            let stream = stream.map_err(|error| wrong(error.to_string()))?;
            let _ = stream.set_nodelay(true);
            let stream = tls.connect(name, stream).await.map_err(|error| wrong(error.to_string()))?;
            let opened = http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = opened.map_err(|error| wrong(in_full(&error)))?;
            // It lives while somebody waits for an answer.
            tokio::spawn(connection);
            Ok(sender)
        };
        let opened = self.runtime.block_on(async { timeout(PATIENCE, connecting).await });
        opened.map_err(|_| wrong(format!("no connection in {} s", PATIENCE.as_secs())))?
    }

    fn endpoint(&self) -> &Endpoint {
        &self.settings.endpoints[self.at % self.settings.endpoints.len()]
    }

    fn unreachable(&self, reason: impl fmt::Display) -> ClusterError {
        ClusterError::Unreachable(format!("{}: {reason}", self.endpoint()))
    }
}

impl Watch {
    /// The next whole line. May be given up and asked again: nothing is lost by it.
    async fn line(&mut self) -> Result<Vec<u8>, ClusterError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(line);
            }
            let broken = |reason: String| ClusterError::Unreachable(format!("the watch broke off: {reason}"));
            let frame = self.body.frame().await.ok_or_else(|| broken("it was closed".into()))?;
            let frame = frame.map_err(|error| broken(in_full(&error)))?;
            let Some(data) = frame.data_ref() else { continue };
            for part in data.split_inclusive(|octet| *octet == b'\n') {
                self.line.extend_from_slice(part);
                if self.line.len() > ANSWER_OCTETS_MAX {
                    return Err(ClusterError::Strange("a line of the watch has no end".into()));
                }
                if part.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.line);
                    self.ready.extend((!line.trim_ascii().is_empty()).then_some(line));
                }
            }
        }
    }
}

impl Cluster for Client {
    fn name(&self) -> String {
        let endpoints: Vec<String> = self.settings.endpoints.iter().map(Endpoint::to_string).collect();
        format!("etcd {} {}", endpoints.join(" "), self.settings.prefix)
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Done, ClusterError> {
        let (mut compare, mut success, mut failure) = (Vec::new(), Vec::new(), Vec::new());
        for (key, revision, value) in &transaction.rows {
            let key = self.full(key);
            let revision = revision.to_string();
            compare.push(json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision }));
            success.push(match value {
                Some(value) => {
                    json!({ "request_put": { "key": key, "value": base64::encode_block(value.as_bytes()) } })
                }
                None => json!({ "request_delete_range": { "key": key } }),
            });
            failure.push(json!({ "request_range": { "key": key } }));
        }
        let asked = json!({ "compare": compare, "success": success, "failure": failure });
        let answer = self.call("/v3/kv/txn", &asked)?;
        let revision = number(&answer["header"]["revision"])?;
        if answer["succeeded"] == true {
            return Ok(Done::Applied(revision));
        }
        let mut rows = Vec::new();
        for response in list(&answer["responses"]) {
            for row in list(&response["response_range"]["kvs"]) {
                rows.push(self.own(row)?);
            }
        }
        Ok(Done::Overtaken(revision, rows))
    }
}

/// A number, which JSON made of 64 bits has as text; left out if it is 0.
fn number(value: &Value) -> Result<u64, ClusterError> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => text.parse().map_err(|_| ClusterError::Strange(format!("{text} is no number"))),
        other => other.as_u64().ok_or_else(|| ClusterError::Strange(format!("{other} is no number"))),
    }
}

/// Octets; left out if there are none.
fn octets_of(value: &Value) -> Result<Vec<u8>, ClusterError> {
    let strange = |_| ClusterError::Strange("no base64".to_owned());
    base64::decode_block(value.as_str().unwrap_or_default()).map_err(strange)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Why a member says no: in JSON, or in a line of its own where it does not come so far.
fn reason_in(answer: &[u8]) -> String {
    match serde_json::from_slice::<Value>(answer) {
        Ok(said) => words(&said["error"]),
        Err(_) => String::from_utf8_lossy(answer).trim().chars().take(200).collect(),
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "no reason is given".to_owned(),
        Value::Object(fields) => fields.get("message").map_or_else(|| value.to_string(), words),
        other => other.to_string(),
    }
}

/// An error with what is behind it: HTTP hides what TLS has to say.
fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", in_full(source)),
        None => error.to_string(),
    }
}
