//! The policy file, read again without anything else.

use tracing::info;

use super::Control;
use super::uplinks::resolved;
use crate::config::{Problems, read_policy};
use crate::manage::api::PolicyLoadedView;
use crate::policy::{Policy, PolicyFile, diff};

impl Control {
    /// Reads the policy file again: all of it or nothing. A file that is gone is no policy.
    pub(super) fn load_policy(&mut self) -> Result<PolicyLoadedView, Problems> {
        let file = self.configuration.site.node.policy_file.clone();
        let text = read_policy(&file)?;
        // Providers are known to the policy by their prefixes, also those that were found out.
        let found = self.engine.found();
        let known = resolved(&self.configuration, &found);
        let parse = |text: &String| Policy::parse(&file, text, &known.site, &known.hosts);
        let policy = text.as_ref().map(parse).transpose()?;
        let none = PolicyFile::default();
        let said = policy.as_ref().map_or(&none, |(_, said)| said);
        let view = PolicyLoadedView {
            file: file.display().to_string(),
            classes: said.classes.len() as u64,
            changed: diff(self.engine.policy_file().unwrap_or(&none), said).len() as u64,
        };
        let now = self.clock.now();
        self.engine.inputs().set_policy(now, (text.as_deref(), &found), policy, &mut self.effects);
        self.carry_out();
        self.configuration.policy = text;
        self.share();
        info!(classes = view.classes, changed = view.changed, "policy loaded");
        Ok(view)
    }
}
