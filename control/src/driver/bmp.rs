//! What routers tell, on its way to the engine, and what it asks, on its way to them.

use std::time::{Duration, Instant as WallInstant};

use tracing::{info, warn};

use super::{Control, RunError};
use crate::bmp::Phase;
use crate::bmp::server::{News, Patience, Server, Wish};
use crate::bmp::station::{RouterStatus, SourceStatus, Status};
use crate::config::tls::Tls;
use crate::engine::{Effect, RouteWish};
use crate::manage::api::{BmpRouterView, BmpSourceView, BmpState, BmpView};
use crate::manage::server::ServerError;
use crate::tape::Inputs;
use crate::time::Instant;

/// News taken in and questions asked before others get their turn.
const PER_TURN: usize = 256;
/// For how long an address is tried again that the old process has not let go of yet.
const AGAIN: Duration = Duration::from_secs(10);

/// The station, and what it said last of how everything stands.
pub(super) struct Routers {
    server: Server,
    status: Status,
}

impl Routers {
    /// What happened between routers and the station.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.server.counts().iter()
    }

    /// Other certificates for connections that come later.
    pub(super) fn renew(&self, tls: &Tls) {
        self.server.renew(tls);
    }

    /// Takes in news and asks what there is to ask. How much news there was.
    pub(super) fn turn(&mut self, now: Instant, inputs: &mut Inputs<'_>, effects: &mut Vec<Effect>) -> usize {
        // A box that hears routers is not recorded.
        let (engine, _) = inputs.unrecorded();
        let mut taken = 0;
        while taken < PER_TURN
            && let Some(news) = self.server.news()
        {
            taken += 1;
            match news {
                News::Route(change) => {
                    engine.route_changed(now, &change.provider, change.peer, change.lost, effects);
                }
                News::Status(status) => self.take_status(*status),
            }
        }
        for _ in 0..PER_TURN {
            let Some(wish) = engine.next_route_wish() else { break };
            let asked = match wish {
                RouteWish::Ask(peer) => Wish::Ask(peer),
                RouteWish::Forget(peer) => Wish::Forget(peer),
            };
            if !self.server.wish(asked) {
                engine.route_wish_waits(wish);
                break;
            }
        }
        taken
    }

    /// The log tells of sources that are in another state.
    fn take_status(&mut self, status: Status) {
        for (new, old) in status.sources.iter().zip(&self.status.sources) {
            if (new.phase, new.stalled) != (old.phase, old.stalled) {
                let state = state_of(new);
                info!(provider = %new.provider, peer = %new.peer, routes = new.routes, lost = new.lost, %state, "routes");
            }
        }
        self.status = status;
    }
}

impl Control {
    /// Listens to routers, if the configuration says so. An address that a process had which gave way may take a moment to be
    /// free.
    pub(super) fn begin_routers(&mut self, taken_over: bool) -> Result<(), RunError> {
        let Some(settings) = &self.configuration.site.bmp else { return Ok(()) };
        let until = WallInstant::now() + if taken_over { AGAIN } else { Duration::ZERO };
        let server = loop {
            match Server::open(settings, self.configuration.bmp_tls.as_deref(), Patience::default()) {
                Ok(server) => break server,
                Err(_) if WallInstant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Err(source) => return Err(ServerError::Deaf { address: settings.listen, source }.into()),
            }
        };
        if self.configuration.bmp_tls.is_none() {
            warn!(at = %server.address(), "routers are listened to without TLS");
        }
        info!(at = %server.address(), "listening to routers");
        self.engine.inputs().unrecorded().0.expect_routes(self.clock.now());
        self.routers = Some(Routers { server, status: Status::default() });
        Ok(())
    }

    /// How routers, sources and trust in them stand.
    pub(super) fn bmp(&self, now: Instant) -> BmpView {
        let Some(routers) = &self.routers else { return BmpView::default() };
        let sources = routers.status.sources.iter().map(|it| {
            let trust = self.engine.distrusted_feeds(now).find(|(name, ..)| *name == &*it.provider);
            let (lies, left) = trust.map_or((0, 0), |(_, lies, left)| (lies, left));
            source_view(it, u64::from(lies), left)
        });
        BmpView {
            enabled: true,
            listen: Some(routers.server.address()),
            tls: self.configuration.bmp_tls.is_some(),
            routers: routers.status.routers.iter().map(router_view).collect(),
            sources: sources.collect(),
            asked: routers.status.asked as u64,
            held: self.engine.routes_held() as u64,
        }
    }
}

fn state_of(source: &SourceStatus) -> BmpState {
    match source.phase {
        Phase::Silent => BmpState::Silent,
        _ if source.stalled => BmpState::Stalled,
        Phase::Filling => BmpState::Filling,
        Phase::Complete => BmpState::Complete,
        Phase::Down => BmpState::Down,
        Phase::Overfull => BmpState::Overfull,
    }
}

fn source_view(it: &SourceStatus, lies: u64, distrusted_s: u64) -> BmpSourceView {
    BmpSourceView {
        provider: it.provider.to_string(),
        peer: it.peer,
        router: it.router,
        state: state_of(it),
        since_s: it.since.as_secs(),
        routes: it.routes as u64,
        lost: it.lost as u64,
        lies,
        distrusted_s,
    }
}

fn router_view(it: &RouterStatus) -> BmpRouterView {
    BmpRouterView {
        address: it.address,
        name: it.name.clone(),
        description: it.description.clone(),
        certificate: it.certificate.as_deref().map(str::to_owned),
        messages: it.messages,
        silent_s: it.silent.as_secs(),
        stalled: it.stalled,
    }
}
