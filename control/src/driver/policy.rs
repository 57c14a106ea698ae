//! The policy file, read again without anything else.

use tracing::info;

use super::Control;
use crate::config::{Problems, read_policy};
use crate::manage::api::PolicyLoadedView;
use crate::policy::{Policy, PolicyFile, diff};

impl Control {
    /// Reads the policy file again: all of it or nothing. A file that is gone is no policy.
    pub(super) fn load_policy(&mut self) -> Result<PolicyLoadedView, Problems> {
        let (site, hosts) = (&self.configuration.site, &self.configuration.hosts);
        let file = site.node.policy_file.clone();
        let text = read_policy(&file)?;
        let policy = text.as_ref().map(|text| Policy::parse(&file, text, site, hosts)).transpose()?;
        let none = PolicyFile::default();
        let said = policy.as_ref().map_or(&none, |(_, said)| said);
        let view = PolicyLoadedView {
            file: file.display().to_string(),
            classes: said.classes.len() as u64,
            changed: diff(self.engine.policy_file().unwrap_or(&none), said).len() as u64,
        };
        let now = self.clock.now();
        self.engine.set_policy(now, policy, &mut self.effects);
        self.carry_out();
        self.configuration.policy = text;
        self.share();
        info!(classes = view.classes, changed = view.changed, "policy loaded");
        Ok(view)
    }
}
