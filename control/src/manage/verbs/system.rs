//! Whether the box is fit to serve, and what it shares with the operating system, for people.

use crate::manage::api::SystemView;

pub(super) fn text(view: &SystemView) -> String {
    let mut text = match view.fit {
        true => "fit to serve".to_owned(),
        false => format!("not fit to serve: {}", view.unfit.join("; ")),
    };
    if let Some(role) = view.role {
        text += &format!(" ({})", role.name());
    }
    text.push('\n');
    for interface in &view.interfaces {
        let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
        let link = if interface.link_up { "up" } else { "down" };
        text += &format!("interface {}: port {}, {link}, {}\n", interface.name, interface.port, addresses.join(" "));
    }
    for route in &view.routes {
        text += &format!("route {} on {}, metric {}\n", route.prefix, route.interface, route.metric);
    }
    if let Some(router) = view.inner_router {
        text += &format!("hosts are behind {router}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::site::Role;
    use crate::manage::api::{InterfaceView, RouteView};

    #[test]
    fn people_see_why_and_what() {
        let mut view = SystemView { fit: true, role: Some(Role::Backup), ..SystemView::default() };
        assert_eq!(text(&view), "fit to serve (backup)\n");
        view.fit = false;
        view.unfit = vec!["the operator withdrew it".into(), "no provider is up".into()];
        view.interfaces = vec![InterfaceView {
            name: "ps-lan".into(),
            port: "lan".into(),
            link_up: true,
            addresses: vec!["fe80::5".parse().unwrap()],
        }];
        view.routes = vec![RouteView { interface: "ps-lan".into(), prefix: "fc00::/7".into(), metric: 200 }];
        view.inner_router = Some("fe80::9".parse().unwrap());
        assert_eq!(
            text(&view),
            "not fit to serve: the operator withdrew it; no provider is up (backup)\n\
             interface ps-lan: port lan, up, fe80::5\nroute fc00::/7 on ps-lan, metric 200\nhosts are behind fe80::9\n"
        );
    }
}
