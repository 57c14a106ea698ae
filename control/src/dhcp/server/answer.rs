//! Answers: whom they are from and for, what was asked for besides, and what each association hears.

use super::super::config::Config;
use super::super::message::{Kind, Request, Writer, code};
use super::super::options;
use super::{INFORMATION_REFRESH, Outcome, Server};

impl Server {
    /// A message with the server's name and the client's.
    pub(super) fn begin(&self, kind: u8, request: &Request) -> Writer {
        let mut out = Writer::message(kind, request.transaction);
        out.option(code::SERVER_ID, |out| out.put(self.config.duid.octets()));
        if let Some(client) = &request.client {
            out.option(code::CLIENT_ID, |out| out.put(client.octets()));
        }
        out
    }

    /// What the client asked for besides.
    pub(super) fn put_options(&self, out: &mut Writer, request: &Request, name: Option<&str>) {
        let wants = |code| request.wants.contains(&code);
        if wants(code::DNS_SERVERS) && !self.config.dns.is_empty() {
            out.option(code::DNS_SERVERS, |out| self.config.dns.iter().for_each(|it| out.put(&it.octets())));
        }
        if wants(code::DOMAIN_LIST) && !self.config.search.is_empty() {
            let names = self.config.search.iter().filter_map(|name| options::encode_name(name));
            out.option(code::DOMAIN_LIST, |out| names.for_each(|name| out.put(&name)));
        }
        if wants(code::ADDRESS_SELECTION) && !self.config.policy.is_empty() {
            options::put_policy(out, self.config.policy_flags, &self.config.policy);
        }
        if wants(code::INFORMATION_REFRESH_TIME) && request.kind == Kind::InformationRequest {
            out.option(code::INFORMATION_REFRESH_TIME, |out| out.put(&INFORMATION_REFRESH.to_be_bytes()));
        }
        if let (Some(wish), Some(name)) = (&request.name, name) {
            // RFC 4704 §4.1: N, we tell DNS nothing; O if the client wanted that we do.
            let flags = 4 | (wish.flags & 1) << 1;
            let domain = self.config.search.first().and_then(|domain| options::encode_name(domain));
            out.option(code::CLIENT_FQDN, |out| {
                out.put(&[flags, name.len() as u8]);
                out.put(name.as_bytes());
                out.put(&domain.unwrap_or_default());
            });
        }
    }

    /// An option for each association that there is something to say of. All have the same T1 and T2 (§18.3.2).
    pub(super) fn put_outcomes(&self, out: &mut Writer, request: &Request, outcomes: &[Outcome]) {
        let Config { preferred, valid, t1, t2, .. } = self.config;
        let lifetimes = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Lease { valid, .. } => Some(*valid),
            _ => None,
        });
        let shortest = lifetimes.min().unwrap_or(valid);
        let times = if shortest < valid { (t1.min(shortest / 2), t2.min(shortest / 5 * 4)) } else { (t1, t2) };
        for (ia, outcome) in request.ias.iter().zip(outcomes) {
            match outcome {
                Outcome::Lease { address, valid, dead } => out.ia(ia, times, |out| {
                    out.address(*address, preferred.min(*valid), *valid);
                    dead.iter().for_each(|address| out.address(*address, 0, 0));
                }),
                Outcome::Dead(dead) => {
                    out.ia(ia, (0, 0), |out| dead.iter().for_each(|address| out.address(*address, 0, 0)));
                }
                Outcome::Status(status, text) => out.ia(ia, (0, 0), |out| out.status(*status, text)),
                Outcome::Done => {}
            }
        }
    }
}
