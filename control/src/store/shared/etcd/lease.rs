//! Leases of `etcd`: rows that live for as long as somebody says so.

use openssl::base64;
use serde_json::json;

use super::{Client, list, number};
use crate::store::shared::{ClusterError, Row};

impl Client {
    /// A lease that ends when nobody says for so many seconds that it lives.
    pub(in crate::store::shared) fn grant(&mut self, seconds: u64) -> Result<String, ClusterError> {
        let answer = self.call("/v3/lease/grant", &json!({ "TTL": seconds.to_string() }))?;
        match answer["ID"].as_str() {
            Some(lease) => Ok(lease.to_owned()),
            None => Err(ClusterError::Strange("a lease without a number".into())),
        }
    }

    /// Says that it lives. False if it does not any more.
    pub(in crate::store::shared) fn keep(&mut self, lease: &str) -> Result<bool, ClusterError> {
        let answer = self.call("/v3/lease/keepalive", &json!({ "ID": lease }))?;
        Ok(number(&answer["result"]["TTL"])? > 0)
    }

    /// Ends it, and the rows that live by it.
    pub(in crate::store::shared) fn revoke(&mut self, lease: &str) -> Result<(), ClusterError> {
        self.call("/v3/lease/revoke", &json!({ "ID": lease })).map(drop)
    }

    /// A row, and the lease it lives by, if there is one; 0 is none.
    pub(in crate::store::shared) fn find(&mut self, key: &str) -> Result<Option<(Row, String)>, ClusterError> {
        let answer = self.call("/v3/kv/range", &json!({ "key": self.full(key) }))?;
        let Some(found) = list(&answer["kvs"]).first() else { return Ok(None) };
        let lease = found["lease"].as_str().unwrap_or("0").to_owned();
        Ok(Some((self.own(found)?, lease)))
    }

    /// Writes a row that lives by a lease, if the revision of the one in its place is this one (0: there is none). Whether it
    /// was.
    pub(in crate::store::shared) fn put_under(
        &mut self,
        key: &str,
        revision: u64,
        value: &str,
        lease: &str,
    ) -> Result<bool, ClusterError> {
        let key = self.full(key);
        let compare = json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() });
        let put = json!({ "key": key, "value": base64::encode_block(value.as_bytes()), "lease": lease });
        let asked = json!({ "compare": [compare], "success": [{ "request_put": put }], "failure": [] });
        Ok(self.call("/v3/kv/txn", &asked)?["succeeded"] == true)
    }
}
