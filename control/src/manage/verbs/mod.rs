//! What `pshim6ctl` does: the command line, and a function for each command.
//!
//! `files` and `providers` work on the operator's files and need no daemon, `show` asks a running one; both answer a person with a
//! table or, with `--json`, a program with exactly the types of [`api`](super::api).

mod account;
mod bmp;
mod doctor;
mod files;
mod manual;
mod pcapng;
mod policy;
mod providers;
pub mod records;
mod remote;
mod replay;
mod show;
mod store;
mod system;
mod top;
mod trace;
mod upgrade;
mod uplinks;
mod zone;

use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

pub use replay::{Look, ReplayArgs, ReplayLine, Replayer, Say};

use super::api::{ContextFilter, ContextState, Request, SteerRequest, Steering};
use super::client::{Client, ClientError};
use crate::config::edit::{NewProvider, SiteEditError};
use crate::config::hosts::EditError;
use crate::config::key::KeyFileError;
use crate::config::{DEFAULT_PATH, Prefix, Problems, Site};

/// Exit status when no daemon answers.
const NO_DAEMON: u8 = 3;
/// Exit status when whoever asks may not.
const NOT_ALLOWED: u8 = 4;

/// Looks after a P-SHIM6 box: checks its configuration, makes its hosts, and shows what it is doing.
///
/// Exit status: 0 when it worked, 1 when it did not, 2 when the command line was wrong, 3 when no daemon answers, 4 when it may
/// only be asked by others.
#[derive(Debug, Parser)]
#[command(name = "pshim6ctl", version)]
pub struct Cli {
    /// The site's configuration.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Ask the daemon at this socket, whatever the configuration says.
    #[arg(long, global = true, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    remote: remote::RemoteArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the configuration and the hosts file; every fault is named with file, line and field.
    ///
    /// Needs no daemon. Warnings do not change the exit status.
    Check,
    /// Look whether this machine is fit to be the box, and say what mends it.
    ///
    /// Hugepages, memory, network cards, IOMMU, cores, MTUs, what the kernel does with the same links, the clock, keys and
    /// sockets; of a running box also its links and next hops. Changes nothing. Exit status: 1 when something keeps the box from its
    /// work, else 0, also when something should be known.
    Doctor(doctor::DoctorArgs),
    /// The static hosts in the hosts file.
    #[command(subcommand)]
    Host(HostVerb),
    /// The site's key pair.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Have the running box serve, or leave it to others.
    #[command(subcommand)]
    Box(BoxVerb),
    /// How the running box is.
    Status,
    /// The hosts the running box serves.
    Hosts,
    /// The contexts of the running box.
    Contexts(ContextArgs),
    /// What the running box knows of each path.
    Paths,
    /// What routers tell the running box of its providers' routes.
    ///
    /// Sessions with providers that `[[bmp.source]]` names, the routers that tell of them, to how many prefixes of peers a provider
    /// has lost its route, and how far its feed is believed.
    Bmp,
    /// The counters of the running box.
    Counters {
        /// Only those whose name has this in it.
        name: Option<String>,
        /// Those that are zero, too.
        #[arg(long)]
        all: bool,
        /// What each means and, where something is dropped, what to do about it.
        #[arg(long)]
        explain: bool,
    },
    /// The hosts of the running box that have their address by DHCPv6.
    Leases,
    /// The store: leases, with all that was made for them.
    #[command(subcommand)]
    Store(StoreVerb),
    /// What the running box translates for peers without Shim6, and through which providers.
    Natv6,
    /// Whom the running box asks for the hosts, and what it has learned.
    Dns {
        #[command(subcommand)]
        verb: Option<DnsVerb>,
    },
    /// Use a provider of the running box in another way, or change which providers the site has.
    ///
    /// `provider NAME drain` and the like hold until told otherwise or restarted: peers are told by Locator Preferences, and
    /// nobody moves before the new way was answered on. `provider add`, `remove` and `replace` change the configuration and
    /// the hosts' locators and have a running daemon reload: sessions move, and no host notices.
    #[command(args_conflicts_with_subcommands = true)]
    Provider(ProviderArgs),
    /// The policy: which providers carry which traffic.
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// The zones of the site: names, identifiers and reverse names of all hosts, as a zone file has them.
    ///
    /// Of the hosts the running box serves, or of the hosts file if none runs. What `[publish]` keeps up to date by itself is
    /// the same.
    Zone {
        /// The hosts' domain, if the configuration has no `publish.zone`.
        #[arg(long)]
        domain: Option<String>,
    },
    /// Have the running box read its configuration and hosts again: all of it or nothing.
    Reload,
    /// Have the program as it is on disk now take the running one's place; sessions go on.
    ///
    /// The new process is told everything and then given the ports. If it cannot take over, the old one goes on. Settings that
    /// need a restart are taken over, but for `box.workers` and the ports.
    Upgrade,
    /// What would become of a packet, and why: its path, run on a copy of what it would find.
    ///
    /// From a host to a peer it is a packet from inside; from a peer to a host it comes as the peer would send it.
    Explain(trace::ExplainArgs),
    /// What becomes of packets that come by, also of those that are dropped: each stage's decision.
    ///
    /// Ends with --count, --seconds or control-C. One trace at a time; records that are more than --rate, or find no room, are
    /// counted and left out. With --json, a line for each packet.
    Trace(trace::TraceArgs),
    /// The recording of everything the control core of the running box is told (`pshim6d --record`).
    #[command(subcommand)]
    Record(replay::RecordVerb),
    /// Decide again what a recorded box decided, and tell of it: what happened when, and how the box was then.
    ///
    /// Needs no daemon, and changes nothing. Says where this program decides otherwise than the one that recorded. Exit status: 1
    /// when it does, or when the recording is damaged.
    Replay(replay::ReplayArgs),
    /// A live screen: providers, rates, paths, what is dropped most. Control-C ends it.
    Top(top::TopArgs),
    /// Print what a shell has to know to complete commands.
    ///
    /// `source <(pshim6ctl completion bash)`; for fish, `pshim6ctl completion fish | source`.
    Completion {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    Man {
        /// Where to.
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum BoxVerb {
    /// Withdraw the routes to this box, so that others serve; it goes on forwarding what comes all the same.
    Withdraw,
    /// Announce the routes to this box again, as soon as it is fit to serve.
    Serve,
}

#[derive(Debug, Subcommand)]
enum DnsVerb {
    /// Forget every answer, and which identifiers lead nowhere.
    Flush,
}

#[derive(Args, Debug)]
struct ProviderArgs {
    #[command(subcommand)]
    change: Option<ProviderChange>,
    /// Its name.
    #[arg(required = true)]
    name: Option<String>,
    /// What is wanted of it.
    #[arg(value_enum, required = true)]
    wanted: Option<ProviderVerb>,
}

#[derive(Debug, Subcommand)]
enum ProviderChange {
    /// Add a provider to the configuration, and an address from it to every host that can have one.
    ///
    /// A hybrid host's new locator is signed with `site.key`; an HBA-only host has none from a provider it was not made for.
    Add {
        /// What to call it.
        name: String,
        #[command(flatten)]
        settings: ProviderSettings,
    },
    /// Remove a provider from the configuration and its locators from all hosts. Sessions leave it first.
    Remove {
        /// Its name.
        name: String,
    },
    /// Put a provider in the place of another, in one change.
    Replace {
        /// The one that goes.
        old: String,
        /// What to call the one that comes.
        name: String,
        #[command(flatten)]
        settings: ProviderSettings,
    },
}

#[derive(Args, Debug)]
struct ProviderSettings {
    /// The port it is behind, by its name in the configuration.
    #[arg(long)]
    port: String,
    /// The /64 it delegates for locators.
    #[arg(long)]
    prefix: Prefix,
    /// Its router: on the port's link, or link-local.
    #[arg(long)]
    next_hop: Ipv6Addr,
    /// Lower comes first.
    #[arg(long)]
    preference: Option<u16>,
    /// All that it delegates, for `natv6.mapped`.
    #[arg(long)]
    delegated: Option<Prefix>,
}

impl ProviderSettings {
    fn of(&self, name: &str) -> NewProvider {
        NewProvider {
            name: name.to_owned(),
            port: self.port.clone(),
            prefix: self.prefix,
            next_hop: self.next_hop,
            preference: self.preference,
            delegated: self.delegated,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProviderVerb {
    /// All contexts leave it, ours and the peers' direction, as if it had failed.
    Drain,
    /// New contexts go elsewhere while they can; those that use it stay.
    Avoid,
    /// Contexts move to it, and new ones begin there.
    Prefer,
    /// As configured again; contexts stay where they are.
    Restore,
}

#[derive(Debug, Subcommand)]
enum HostVerb {
    /// Make a host's addresses, write them to the hosts file and print the DNS records to publish.
    ///
    /// The addresses are one HBA set over the site's and all providers' prefixes (RFC 5535): hybrid CGA/HBA when
    /// `site.key` is configured, HBA-only otherwise. A running daemon is told to reload.
    Add {
        /// What to call it: letters, digits, - _ and dots.
        name: String,
        /// Make the addresses of a host of that name again; they all change.
        #[arg(long)]
        replace: bool,
        /// Make the site's key first if the configured file does not exist.
        #[arg(long)]
        make_key: bool,
        /// Domain to complete the name with in the DNS records.
        #[arg(long)]
        domain: Option<String>,
    },
    /// Fit the locators of hosts to the site's providers as they are now; identifiers stay.
    ///
    /// Hosts use those addresses of their set that a provider delegates. A hybrid host also gets an address from a
    /// provider it was not made for, which `site.key` signs. A running daemon is told to reload.
    Update {
        /// Of this host only.
        name: Option<String>,
    },
    /// Remove a host from the hosts file. A running daemon is told to reload.
    Remove {
        /// Its name.
        name: String,
    },
    /// The hosts in the hosts file.
    List,
    /// The DNS records to publish.
    Records {
        /// Of this host only.
        name: Option<String>,
        /// Domain to complete names with.
        #[arg(long)]
        domain: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum StoreVerb {
    /// Print everything in it as JSON; a running daemon is asked, or the cluster if boxes share it.
    Export,
    /// Take an export into an empty store, all of it or nothing. The daemon must not run, unless boxes share the store.
    Import {
        /// What `store export` printed; - for standard input.
        file: PathBuf,
    },
    /// Read every page, and everything on it. The daemon must not run. Of a store that boxes share: ask each member of the
    /// cluster, and read every row.
    Check,
    /// Write the files that boxes share as the store has them: for a box that has none yet.
    Pull,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Make the key pair at `site.key`, readable by its owner alone. A key that exists is never overwritten.
    Make {
        /// Length of the RSA modulus.
        #[arg(long, default_value_t = crate::identity::SigningKey::BITS_DEFAULT)]
        bits: u32,
    },
}

#[derive(Args, Debug)]
struct ContextArgs {
    /// Only those with this identifier at either end.
    #[arg(long)]
    ulid: Option<Ipv6Addr>,
    /// Only those in this state: idle, i1-sent, i2-sent, i2bis-sent, established, e-failed, no-support.
    #[arg(long)]
    state: Option<ContextState>,
    /// Only those of this host, by its name or identifier.
    #[arg(long)]
    host: Option<String>,
    /// Only those with this peer, by its identifier.
    #[arg(long)]
    peer: Option<Ipv6Addr>,
    /// Only those whose peer has its identifier or the locator in use in this prefix.
    #[arg(long)]
    prefix: Option<Prefix>,
    /// Only those that send through this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Only those on this path: a provider and a peer's prefix, as `pshim6ctl paths` shows them.
    #[arg(long, num_args = 2, value_names = ["PROVIDER", "PREFIX"], conflicts_with_all = ["prefix", "provider"])]
    path: Option<Vec<String>>,
    /// At most this many.
    #[arg(long, default_value_t = ContextFilter::LIMIT_DEFAULT)]
    limit: u32,
}

impl ContextArgs {
    fn filter(&self) -> ContextFilter {
        let path = |at: usize| self.path.as_ref().and_then(|path| path.get(at)).cloned();
        ContextFilter {
            ulid: self.ulid,
            state: self.state,
            host: self.host.clone(),
            peer: self.peer,
            prefix: self.prefix.map(|prefix| prefix.to_string()).or(path(1)),
            provider: self.provider.clone().or(path(0)),
            limit: Some(self.limit),
            after: None,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The configuration or the hosts file is wrong.
    #[error(transparent)]
    Files(#[from] Problems),
    /// The hosts file was not changed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The configuration was not changed.
    #[error(transparent)]
    Site(#[from] SiteEditError),
    /// None has such a name.
    #[error("no counter's name contains {0:?} (counters --all shows them all)")]
    NoCounter(String),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The daemon is not there or did not obey.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be written.
    #[error("the answer cannot be written: {0}")]
    Write(#[from] io::Error),
    /// Something else, in words.
    #[error("{0}")]
    Words(String),
    /// Everything was said already.
    #[error("")]
    Said,
}

impl VerbError {
    /// The exit status that says so.
    fn status(&self) -> ExitCode {
        match self {
            VerbError::Client(ClientError::NotRunning { .. } | ClientError::Broken { .. }) => ExitCode::from(NO_DAEMON),
            VerbError::Client(ClientError::NoAccess { .. } | ClientError::Refused { status: 403, .. }) => {
                ExitCode::from(NOT_ALLOWED)
            }
            _ => ExitCode::FAILURE,
        }
    }
}

/// Where answers go, and in which form.
struct Output<'a> {
    json: bool,
    /// Where the daemon is, if it was said on the command line.
    socket: Option<&'a Path>,
    /// The same, if it is on another machine.
    remote: &'a remote::RemoteArgs,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Output<'_> {
    /// A connection to the daemon.
    fn client(&self, config: &Path) -> Result<Client, VerbError> {
        if let Some(client) = self.remote.client()? {
            return Ok(client);
        }
        let Some(socket) = self.socket else { return Ok(Client::reach(&Site::load(config)?.0)?) };
        Ok(Client::connect(socket)?)
    }

    /// Prints `value`: as JSON, or as `text` makes it for people.
    fn answer<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), VerbError> {
        if self.json {
            let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
            writeln!(self.out, "{json}")?;
        } else {
            write!(self.out, "{}", text(value))?;
        }
        Ok(())
    }

    /// Says something beside the answer.
    fn note(&mut self, text: impl std::fmt::Display) -> Result<(), VerbError> {
        Ok(writeln!(self.err, "{text}")?)
    }
}

/// Runs one command; answers go to `out`, everything else to `err`.
///
/// `replayer` decides again what was recorded.
pub fn run(cli: &Cli, replayer: Replayer, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let mut output = Output { json: cli.json, socket: cli.socket.as_deref(), remote: &cli.remote, out, err };
    let result = obey(cli, replayer, &mut output).and_then(|()| Ok(output.out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `pshim6ctl contexts | head` is no failure.
        Err(VerbError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(VerbError::Said) => ExitCode::FAILURE,
        Err(error) => {
            // Nowhere is left to complain to if this fails.
            let _ = writeln!(output.err, "{error}");
            error.status()
        }
    }
}

/// Whether a verb is about files here, whoever else it tells of what it did to them.
fn works_on_files(verb: &Verb) -> bool {
    let changes = |arguments: &ProviderArgs| arguments.change.is_some();
    match verb {
        Verb::Check | Verb::Doctor(_) | Verb::Host(_) | Verb::Key(_) | Verb::Store(_) | Verb::Zone { .. } => true,
        Verb::Completion { .. } | Verb::Man { .. } | Verb::Replay(_) => true,
        Verb::Provider(arguments) => changes(arguments),
        _ => false,
    }
}

fn obey(cli: &Cli, replayer: Replayer, output: &mut Output<'_>) -> Result<(), VerbError> {
    let config = cli.config.as_path();
    if cli.remote.is_given() && works_on_files(&cli.verb) {
        return Err(VerbError::Words("this works on the files of this machine: --connect has no part in it".into()));
    }
    match &cli.verb {
        Verb::Check => files::check(config, output),
        Verb::Doctor(arguments) => doctor::run(config, arguments, output),
        Verb::Host(HostVerb::Add { name, replace, make_key, domain }) => {
            let wanted = files::Wanted { name, replace: *replace, make_key: *make_key, domain: domain.as_deref() };
            files::host_add(config, &wanted, output)
        }
        Verb::Host(HostVerb::Update { name }) => files::host_update(config, name.as_deref(), output),
        Verb::Host(HostVerb::Remove { name }) => files::host_remove(config, name, output),
        Verb::Host(HostVerb::List) => files::host_list(config, output),
        Verb::Host(HostVerb::Records { name, domain }) => {
            files::host_records(config, name.as_deref(), domain.as_deref(), output)
        }
        Verb::Key(KeyVerb::Make { bits }) => files::key_make(config, *bits, output),
        Verb::Upgrade => upgrade::run(config, Request::Upgrade, output),
        Verb::Status => show::status(config, output),
        Verb::Box(verb) => show::serve(config, matches!(verb, BoxVerb::Serve), output),
        Verb::Hosts => show::hosts(config, output),
        Verb::Contexts(arguments) => show::contexts(config, arguments.filter(), output),
        Verb::Paths => show::paths(config, output),
        Verb::Bmp => bmp::show(config, output),
        Verb::Counters { name, all, explain } => {
            let wanted = show::Wanted { name: name.as_deref(), all: *all, explain: *explain };
            show::counters(config, &wanted, output)
        }
        Verb::Leases => show::leases(config, output),
        Verb::Store(verb) => store::run(config, verb, output),
        Verb::Natv6 => show::natv6(config, output),
        Verb::Dns { verb: None } => show::dns(config, output),
        Verb::Dns { verb: Some(DnsVerb::Flush) } => show::dns_flush(config, output),
        Verb::Provider(arguments) => provider(config, arguments, output),
        Verb::Zone { domain } => zone::zone(config, domain.as_deref(), output),
        Verb::Policy(verb) => policy::run(config, verb, output),
        Verb::Reload => show::reload(config, output),
        Verb::Explain(asked) => trace::explain(config, asked, output),
        Verb::Trace(asked) => trace::trace(config, asked, output),
        Verb::Record(verb) => replay::record(config, verb, output),
        Verb::Replay(asked) => replay::replay(asked, replayer, output),
        Verb::Top(asked) => top::top(config, asked, output),
        Verb::Completion { shell } => manual::completion(*shell, output),
        Verb::Man { directory } => manual::man(directory, output),
    }
}

fn provider(config: &Path, arguments: &ProviderArgs, output: &mut Output<'_>) -> Result<(), VerbError> {
    let change = match &arguments.change {
        Some(ProviderChange::Add { name, settings }) => providers::Change::Add(settings.of(name)),
        Some(ProviderChange::Remove { name }) => providers::Change::Remove(name.clone()),
        Some(ProviderChange::Replace { old, name, settings }) => {
            providers::Change::Replace(old.clone(), settings.of(name))
        }
        None => {
            let (Some(name), Some(wanted)) = (&arguments.name, arguments.wanted) else {
                return Err(VerbError::Words("a provider and what is wanted of it: see --help".into()));
            };
            let steering = match wanted {
                ProviderVerb::Drain => Steering::Drain,
                ProviderVerb::Avoid => Steering::Avoid,
                ProviderVerb::Prefer => Steering::Prefer,
                ProviderVerb::Restore => Steering::Normal,
            };
            return show::provider(config, SteerRequest { provider: name.clone(), steering }, output);
        }
    };
    providers::change(config, &change, output)
}
