//! What the box shares with the operating system, and whether it is fit to serve.

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::site::Role;

/// Whether this box is to serve or to leave it to others, until told otherwise or restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServeRequest {
    /// Whether it is to serve.
    pub serve: bool,
}

/// Whether the box is fit to serve, and what it shares with the operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SystemView {
    /// Whether it is fit: with `[routes]`, whether the system has routes to it.
    pub fit: bool,
    /// Why it is not.
    pub unfit: Vec<String>,
    /// Whether the operator withdrew it.
    pub withdrawn: bool,
    /// `routes.role`; none without routes.
    pub role: Option<Role>,
    /// The routes the system has now.
    pub routes: Vec<RouteView>,
    /// The system's interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// The router that hosts are behind.
    pub inner_router: Option<Ipv6Addr>,
}

/// A route of the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteView {
    /// The interface it is on.
    pub interface: String,
    /// Where to.
    pub prefix: String,
    /// Lower is better.
    pub metric: u32,
}

/// An interface of the system's by which it shares a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// The port.
    pub port: String,
    /// Whether the port's link is up, which the interface's follows.
    pub link_up: bool,
    /// Its addresses, as far as packets for them are given to the system.
    pub addresses: Vec<Ipv6Addr>,
}
