//! What routers tell of the providers' routes, for people.

use std::path::Path;

use super::super::table::Table;
use super::show::{duration, or_dash};
use super::{Output, VerbError};
use crate::manage::api::{BmpView, Request, Response};

pub(super) fn show(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    match output.client(config)?.call(Request::Bmp)? {
        Response::Bmp(view) => output.answer(&view, text),
        _ => Err(VerbError::Words("the daemon answered something else".into())),
    }
}

fn text(view: &BmpView) -> String {
    if !view.enabled {
        return "no router is listened to: the configuration has no [bmp]\n".into();
    }
    let mut sources = Table::new(&["PROVIDER", "NEIGHBOUR", "ROUTER", "STATE", ">SINCE", ">ROUTES", ">LOST", "TRUST"]);
    for it in &view.sources {
        let trust = match (it.distrusted_s, it.lies) {
            (0, 0) => "yes".to_owned(),
            (0, lies) => format!("yes (wrong {lies}x)"),
            (seconds, lies) => format!("not for {} (wrong {lies}x)", duration(seconds)),
        };
        sources.row([
            it.provider.clone(),
            it.peer.to_string(),
            or_dash(it.router),
            it.state.to_string(),
            duration(it.since_s),
            it.routes.to_string(),
            it.lost.to_string(),
            trust,
        ]);
    }
    let mut routers = Table::new(&["ROUTER", "NAME", ">MESSAGES", ">SILENT", "STALLED", "CERTIFICATE", "IS"]);
    for it in &view.routers {
        routers.row([
            it.address.to_string(),
            or_dash(Some(&it.name).filter(|name| !name.is_empty())),
            it.messages.to_string(),
            duration(it.silent_s),
            if it.stalled { "yes" } else { "no" }.to_owned(),
            or_dash(it.certificate.as_ref().map(|text| text.chars().take(16).collect::<String>())),
            it.description.clone(),
        ]);
    }
    let place = view.listen.map(|listen| listen.to_string()).unwrap_or_default();
    let how = if view.tls { "TLS" } else { "plain TCP" };
    let asked = format!("{} prefixes of peers asked about, {} paths held", view.asked, view.held);
    format!("listening at {place}, {how}; {asked}\n\n{sources}\n{routers}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::api::{BmpRouterView, BmpSourceView, BmpState};

    #[test]
    fn sources_and_routers_are_shown() {
        assert!(text(&BmpView::default()).starts_with("no router is listened to"));
        let source = BmpSourceView {
            provider: "isp-x".into(),
            peer: "2001:db8:aa::1".parse().unwrap(),
            router: None,
            state: BmpState::Complete,
            since_s: 61,
            routes: 7,
            lost: 2,
            lies: 1,
            distrusted_s: 9,
        };
        let router = BmpRouterView {
            address: "::1".parse().unwrap(),
            name: "edge".into(),
            description: "FRR".into(),
            certificate: None,
            messages: 3,
            silent_s: 1,
            stalled: false,
        };
        let view =
            BmpView { enabled: true, sources: vec![source], routers: vec![router], asked: 4, ..BmpView::default() };
        let text = text(&view);
        for expected in
            ["plain TCP; 4 prefixes of peers asked about, 0 paths held", "complete", "not for 9s (wrong 1x)", "edge"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
