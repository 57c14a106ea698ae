//! Every operation of the API, declared once: its place in HTTP, who may use it, and the types of question and answer.
//!
//! The server takes requests apart by this table, the client puts them together by it, and the OpenAPI document is made of
//! it; so none of the three can know an operation the others do not.

use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::*;

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever may look.
    Read,
    /// Whoever may change something.
    Operate,
}

/// How HTTP says what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A question; its arguments are in the query.
    Get,
    /// An order; its arguments are JSON in the body.
    Post,
}

impl Method {
    /// As in a request line.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// A query or a body, or why there is none.
type Written = Result<Vec<u8>, String>;

/// What belongs to one operation.
pub struct Operation {
    /// Its name.
    pub id: &'static str,
    /// How it is asked for.
    pub method: Method,
    /// Where.
    pub path: &'static str,
    /// By whom.
    pub role: Role,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// The request that a query or a body stands for; or what is wrong with it.
    pub(super) parse: fn(&[u8]) -> Result<Request, String>,
    /// The query or body that stands for a request; none if the request is another operation's.
    pub(super) write: fn(&Request) -> Option<Written>,
    /// An answer as it travels; none if it is another operation's.
    pub(super) encode: fn(&Response) -> Option<serde_json::Result<Vec<u8>>>,
    /// And back.
    pub(super) decode: fn(&[u8]) -> serde_json::Result<Response>,
    /// The arguments, if it takes any.
    pub(super) arguments: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// The answer.
    pub(super) answer: fn(&mut SchemaGenerator) -> Schema,
}

macro_rules! operation {
    ($summary:literal $method:ident $path:literal $role:ident $request:ident => $answer:ident($view:ty)) => {
        Operation {
            parse: |given| if given.is_empty() { Ok(Request::$request) } else { Err("takes no arguments".to_owned()) },
            write: |request| matches!(request, Request::$request).then(|| Ok(Vec::new())),
            arguments: None,
            ..operation!(@common $summary $method $path $role $request $answer $view)
        }
    };
    ($summary:literal $method:ident $path:literal $role:ident $request:ident($arguments:ty) => $answer:ident($view:ty)) => {
        Operation {
            parse: |given| arguments::<$arguments>(Method::$method, given).map(Request::$request),
            write: |request| match request {
                Request::$request(given) => Some(written(Method::$method, given)),
                _ => None,
            },
            arguments: Some(|schemas| schemas.subschema_for::<$arguments>()),
            ..operation!(@common $summary $method $path $role $request $answer $view)
        }
    };
    (@common $summary:literal $method:ident $path:literal $role:ident $request:ident $answer:ident $view:ty) => {
        Operation {
            id: stringify!($request),
            method: Method::$method,
            path: $path,
            role: Role::$role,
            summary: $summary,
            parse: |_| Err(String::new()),
            write: |_| None,
            encode: |response| match response {
                Response::$answer(view) => Some(serde_json::to_vec(view)),
                _ => None,
            },
            decode: |given| serde_json::from_slice::<$view>(given).map(Response::$answer),
            arguments: None,
            answer: |schemas| schemas.subschema_for::<$view>(),
        }
    };
}

macro_rules! operations {
    ($($summary:literal $method:ident $path:literal $role:ident: $request:ident$(($arguments:ty))? => $answer:ident($view:ty);)*) => {
        /// All of them.
        pub const OPERATIONS: &[Operation] =
            &[$(operation!($summary $method $path $role $request$(($arguments))? => $answer($view))),*];
    };
}

operations! {
    "How the box is: readiness, memory, providers, ports, workers, contexts by state."
        Get "/v1/status" Read: Status => Status(StatusView);
    "The hosts served, and what hosts that are gone left behind."
        Get "/v1/hosts" Read: Hosts => Hosts(HostsView);
    "Contexts that pass a filter, a page at a time."
        Get "/v1/contexts" Read: Contexts(ContextFilter) => Contexts(ContextsView);
    "What is known of each path: a provider and a peer's prefix."
        Get "/v1/paths" Read: Paths => Paths(PathsView);
    "What routers tell of the providers' routes to peers, and how far they are believed."
        Get "/v1/bmp" Read: Bmp => Bmp(BmpView);
    "Every counter, with its meaning and each worker's share."
        Get "/v1/counters" Read: Counters => Counters(CountersView);
    "Everything monitoring is told: status, counters, fill and times in one piece; /metrics is made of it."
        Get "/v1/metrics" Read: Metrics => Metrics(Box<MetricsView>);
    "Translation for peers without Shim6."
        Get "/v1/natv6" Read: Natv6 => Natv6(Natv6View);
    "Hosts that have their address by DHCPv6."
        Get "/v1/leases" Read: Leases => Leases(LeasesView);
    "DNS for the hosts: servers, cache, counters."
        Get "/v1/dns" Read: Dns => Dns(DnsView);
    "Forget every answer of DNS, and which identifiers lead nowhere."
        Post "/v1/dns/flush" Operate: DnsFlush => DnsFlushed(FlushedView);
    "Everything in the store. It names every client, so it is for operators."
        Get "/v1/store" Operate: StoreExport => Store(Box<crate::store::Export>);
    "Read the configuration and the hosts again: all of it or nothing."
        Post "/v1/reload" Operate: Reload => Reloaded(ReloadedView);
    "Start the program anew, as it is on disk now, and have it take this process's place; sessions go on."
        Post "/v1/upgrade" Operate: Upgrade => Upgrading(UpgradingView);
    "The policy in force, and how far the site is from what it wants."
        Get "/v1/policy" Read: Policy => Policy(PolicyView);
    "Read the policy again: all of it or nothing."
        Post "/v1/policy/load" Operate: PolicyLoad => PolicyLoaded(PolicyLoadedView);
    "How the box was in the last hour: a look every few seconds, forgotten when it stops."
        Get "/v1/history" Read: History(HistoryFilter) => History(Box<HistoryView>);
    "Whether what the control core is told is recorded, and where."
        Get "/v1/recording" Read: Recording => Recording(RecordingView);
    "Start the program anew, recorded, and have it take this process's place; sessions go on."
        Post "/v1/recording/start" Operate: RecordStart(RecordRequest) => Upgrading(UpgradingView);
    "Record it no longer."
        Post "/v1/recording/stop" Operate: RecordStop => RecordStopped(RecordingView);
    "Use a provider in another way, until told otherwise or restarted."
        Post "/v1/providers/steering" Operate: Steer(SteerRequest) => Steered(ProviderView);
    "Have this box serve, or leave it to others: withdraw the routes to it, until told otherwise or restarted."
        Post "/v1/serving" Operate: Serve(ServeRequest) => Serving(SystemView);
    "Begin to record what becomes of packets that pass a filter. There is one trace at a time."
        Post "/v1/trace" Operate: TraceStart(TraceRequest) => TraceStarted(TraceStarted);
    "The records made since the last time. They show packets, so they are for operators."
        Get "/v1/trace" Operate: TraceFetch(TraceFetch) => Trace(TraceView);
    "End the trace."
        Post "/v1/trace/stop" Operate: TraceStop(TraceFetch) => TraceStopped(TraceStopped);
    "What would become of a packet, and why: its path, run on a copy."
        Get "/v1/explain" Read: Explain(ExplainRequest) => Explained(Box<ExplainView>);
}

/// The operation of a request. Every request has one, which a test sees to.
pub(super) fn of(request: &Request) -> Option<(&'static Operation, Written)> {
    OPERATIONS.iter().find_map(|operation| Some((operation, (operation.write)(request)?)))
}

fn arguments<T: DeserializeOwned>(method: Method, given: &[u8]) -> Result<T, String> {
    match method {
        Method::Get => serde_urlencoded::from_bytes(given).map_err(|error| format!("query: {error}")),
        Method::Post => serde_json::from_slice(given).map_err(|error| format!("body: {error}")),
    }
}

fn written<T: Serialize>(method: Method, given: &T) -> Written {
    match method {
        Method::Get => serde_urlencoded::to_string(given).map(String::into_bytes).map_err(|error| error.to_string()),
        Method::Post => serde_json::to_vec(given).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_request_has_one_operation_and_no_place_has_two() {
        let schema = schemars::schema_for!(Request).to_value();
        let mut requests = BTreeSet::new();
        for variant in schema["oneOf"].as_array().unwrap() {
            // Those without arguments are strings, each with a description of its own.
            match (&variant["const"], &variant["enum"], &variant["properties"]) {
                (serde_json::Value::String(name), ..) => requests.extend([name.clone()]),
                (_, serde_json::Value::Array(names), _) => {
                    requests.extend(names.iter().map(|name| name.as_str().unwrap().to_owned()));
                }
                (_, _, serde_json::Value::Object(names)) => requests.extend(names.keys().cloned()),
                other => panic!("{other:?}"),
            }
        }
        let snake = |id: &str| -> String {
            let letter = |it: char| if it.is_uppercase() { format!("_{}", it.to_ascii_lowercase()) } else { it.into() };
            id.chars().map(letter).collect::<String>().trim_start_matches('_').to_owned()
        };
        let known: BTreeSet<String> = OPERATIONS.iter().map(|it| snake(it.id)).collect();
        assert_eq!((known.len(), known), (OPERATIONS.len(), requests));
        let places: BTreeSet<_> = OPERATIONS.iter().map(|it| (it.method.name(), it.path)).collect();
        assert_eq!(places.len(), OPERATIONS.len());
        assert!(
            OPERATIONS.iter().all(|it| it.method == Method::Get || it.role == Role::Operate),
            "orders change something"
        );
    }

    #[test]
    fn arguments_come_back_as_they_were_written() {
        let filter = ContextFilter {
            ulid: Some("fc00::1".parse().unwrap()),
            state: Some(ContextState::NoSupport),
            limit: Some(5),
            ..Default::default()
        };
        let steer = SteerRequest { provider: "a & b".into(), steering: Steering::Drain };
        for request in
            [Request::Status, Request::Contexts(filter), Request::Contexts(Default::default()), Request::Steer(steer)]
        {
            let (operation, written) = of(&request).unwrap();
            assert_eq!((operation.parse)(&written.unwrap()), Ok(request));
        }
        let parse = |id: &str, given: &[u8]| {
            let operation = OPERATIONS.iter().find(|it| it.id == id).unwrap();
            (operation.parse)(given).unwrap_err()
        };
        assert_eq!(parse("Status", b"x=1"), "takes no arguments");
        assert!(parse("Contexts", b"ulld=fc00::1").contains("unknown field `ulld`"));
        assert!(parse("Contexts", b"state=open").contains("unknown variant `open`"));
        assert!(parse("Steer", b"{\"provider\":\"x\"}").contains("missing field `steering`"));
    }
}
