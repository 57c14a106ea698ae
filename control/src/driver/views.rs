//! What the operator sees of a box, put together of what engine, workers and devices say.

use std::process::Child;

use dataplane::counters::{Counters, NatCount};

use super::Control;
use super::bmp::Routers;
use super::leases::Leases;
use super::sharing::Sharing;
use crate::manage::api::{CountersView, DnsView, Natv6ProviderView, Natv6View, ProviderView, StatusView, StoreView};
use crate::time::Instant;

impl Control {
    pub(super) fn providers(&self) -> Vec<ProviderView> {
        let ports = &self.configuration.site.ports;
        let mut providers = self.engine.providers_view();
        for view in &mut providers {
            let port = view.port.parse().ok().and_then(|at: usize| ports.get(at));
            view.port = port.map(|port| port.name.clone()).unwrap_or_default();
        }
        providers
    }

    pub(super) fn status(&self, now: Instant) -> StatusView {
        let site = &self.configuration.site;
        StatusView {
            name: site.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.engine.serves(),
            uptime_s: now.since(self.started).as_secs(),
            process: std::process::id(),
            successor: self.successor.as_ref().map(Child::id),
            workers: (0..self.workers.count()).filter_map(|at| self.worker_view(at)).collect(),
            ports: self.devices.ports(),
            providers: self.providers(),
            uplinks: self.uplinks(now),
            memory: self.devices.memory(),
            contexts: self.engine.context_counts(now, site.node.contexts_max),
            hosts: self.engine.hosts_served() as u64,
            publish: self.engine.publish_counts(),
            system: Box::new(self.system_view()),
            store: self.leases.as_ref().and_then(Leases::shared).map(|(alone, name_taken)| {
                Box::new(StoreView {
                    alone,
                    name_taken,
                    shared: self.sharing.as_ref().map(Sharing::view).unwrap_or_default(),
                })
            }),
            sync: self.boxes.as_ref().map(|boxes| Box::new(boxes.view(now, &self.engine))),
        }
    }

    pub(super) fn counters(&self) -> CountersView {
        let mut view = CountersView::default();
        for worker in (0..self.workers.count()).filter_map(|at| self.workers.counters(at)) {
            let own: std::collections::BTreeMap<String, u64> =
                worker.iter().map(|(name, value)| (name.to_owned(), value)).collect();
            for (name, value) in &own {
                *view.counters.entry(name.clone()).or_default() += value;
            }
            view.workers.push(own);
        }
        for (name, help) in Counters::descriptions() {
            view.descriptions.insert(name.to_owned(), help.to_owned());
        }
        let routers = self.routers.iter().flat_map(Routers::counts);
        for (name, help, value) in self.engine.tally().iter().chain(self.engine.name_counts()).chain(routers) {
            view.counters.insert(name.to_owned(), value);
            view.descriptions.insert(name.to_owned(), help.to_owned());
        }
        view
    }

    pub(super) fn dns(&self, now: Instant) -> DnsView {
        let mut view = self.engine.dns_view(now);
        let ports = &self.configuration.site.ports;
        for server in &mut view.servers {
            let port = server.port.take().and_then(|at| ports.get(at.parse::<usize>().ok()?));
            server.port = port.map(|port| port.name.clone());
        }
        view
    }

    pub(super) fn natv6(&self, now: Instant) -> Natv6View {
        let mut view = self.engine.natv6_view(now);
        let about = |name: &str| name.contains("nat_") || name == "drop_unique_local" || name == "control_qualified";
        let all = self.counters().counters.into_iter();
        view.counters = all.filter(|(name, _)| view.enabled && about(name)).collect();
        self.add_translated(&mut view.providers);
        view
    }

    /// What workers counted for the provider in each place.
    pub(super) fn add_translated(&self, providers: &mut [Natv6ProviderView]) {
        for worker in (0..self.workers.count()).filter_map(|at| self.workers.counters(at)) {
            for (at, provider) in providers.iter_mut().enumerate() {
                provider.packets_out += worker.translated(at, NatCount::Out);
                provider.packets_in += worker.translated(at, NatCount::In);
                provider.hairpins += worker.translated(at, NatCount::Hairpin);
                provider.quotes += worker.translated(at, NatCount::Quotes);
            }
        }
    }
}
