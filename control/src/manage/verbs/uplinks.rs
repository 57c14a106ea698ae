//! Providers whose prefix or router is found out, for people.

use super::super::table::Table;
use crate::manage::api::UplinkView;

/// A table of them, with an empty line after it; nothing if there are none.
pub(super) fn uplinks_text(uplinks: &[UplinkView]) -> String {
    if uplinks.is_empty() {
        return String::new();
    }
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    let mut table = Table::new(&["FOUND OUT", "PORT", "DELEGATION", "PREFIXES", ">VALID", "ROUTER", "WAITING"]);
    for it in uplinks {
        let prefixes: Vec<String> = it
            .delegated
            .iter()
            .map(|it| if it.deprecated { format!("({})", it.prefix) } else { it.prefix.clone() })
            .collect();
        let valid = it.delegated.iter().filter(|it| !it.deprecated).map(|it| it.valid_s);
        let valid = valid.map(|seconds| seconds.map_or_else(|| "for ever".into(), |seconds| format!("{seconds} s")));
        table.row([
            it.name.clone(),
            it.port.clone(),
            or_dash(it.stage.clone()),
            or_dash(Some(prefixes.join(" "))),
            or_dash(valid.into_iter().next()),
            or_dash(it.router.map(|router| router.to_string())),
            or_dash(Some(it.waits.clone())),
        ]);
    }
    format!("{table}\n")
}
