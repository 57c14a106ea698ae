//! A new process for a running box.

use std::path::Path;
use std::time::Duration;

use super::{Output, VerbError};
use crate::manage::api::{Request, Response, StatusView};
use crate::manage::client::ClientError;

/// How often the box is asked. A million contexts take some seconds.
const QUESTIONS: u32 = 1200;
/// How long between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks for it, and waits until it is done.
pub(super) fn run(config: &Path, request: Request, output: &mut Output<'_>) -> Result<(), VerbError> {
    let mut client = output.client(config)?;
    let Response::Upgrading(new) = client.call(request)? else { return Err(client.wrong_answer().into()) };
    if !output.json {
        output.note(format!("process {} takes over", new.process))?;
    }
    let mut last = None;
    for _ in 0..QUESTIONS {
        match ask(config, output) {
            Ok(now) if now.process == new.process => return output.answer(&now, said),
            Ok(now) if now.successor != Some(new.process) => {
                let (new, old) = (new.process, now.process);
                let text = format!("process {new} did not take over, and process {old} goes on; the log says why");
                return Err(VerbError::Words(text));
            }
            Ok(now) => last = Some(now.process),
            // For a moment there is nobody.
            Err(VerbError::Client(ClientError::NotRunning { .. } | ClientError::Broken { .. })) => {}
            Err(other) => return Err(other),
        }
        client.pause(PAUSE);
    }
    let who = last.map_or("nobody answers".to_owned(), |process| format!("process {process} answers"));
    let text = format!("process {} has not taken over after {} s; {who}", new.process, (PAUSE * QUESTIONS).as_secs());
    Err(VerbError::Words(text))
}

fn said(status: &StatusView) -> String {
    format!("process {} runs, version {}, {} contexts\n", status.process, status.version, status.contexts.total)
}

fn ask(config: &Path, output: &Output<'_>) -> Result<StatusView, VerbError> {
    let mut client = output.client(config)?;
    match client.call(Request::Status)? {
        Response::Status(status) => Ok(status),
        _ => Err(client.wrong_answer().into()),
    }
}
