//! `trace` and `explain`: what becomes of packets, stage by stage.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::pcapng::{Entry, Way, Writer};
use super::{Output, VerbError};
use crate::manage::api::{
    ExplainRequest, ExplainView, PacketView, Request, Response, TraceFetch, TraceRequest, TracedView,
};
use crate::manage::client::Client;

/// How often records are fetched.
const PACE: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    /// One or two addresses or prefixes the packet has to do with, before or after it is translated.
    #[arg(num_args = 0..=2)]
    addresses: Vec<String>,
    /// Packets of the context with this tag, ours or the peer's.
    #[arg(long)]
    tag: Option<String>,
    /// Packets from or to a locator of this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Dropped packets only; with a REASON (as in hop_limit), those dropped for it.
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "")]
    drop: Option<String>,
    /// At most so many records a second of each worker.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// End after so many packets.
    #[arg(long)]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Write the packets to a file for Wireshark as well, each with its story as a comment.
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// From whom: a host of the site, or a peer.
    source: std::net::Ipv6Addr,
    /// To whom.
    target: std::net::Ipv6Addr,
    /// Differentiated services code point.
    #[arg(long, value_parser = clap::value_parser!(u8).range(..64))]
    dscp: Option<u8>,
    /// tcp, udp, icmpv6, or the number of another next header.
    #[arg(long, default_value = "udp", value_parser = protocol)]
    proto: u8,
    /// Target port.
    #[arg(long)]
    port: Option<u16>,
    /// Source port.
    #[arg(long)]
    source_port: Option<u16>,
    /// Octets of the IPv6 packet.
    #[arg(long)]
    octets: Option<u16>,
}

fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmpv6" => Ok(58),
        number => number.parse().map_err(|_| "tcp, udp, icmpv6 or a number to 255".to_owned()),
    }
}

pub(super) fn explain(config: &Path, asked: &ExplainArgs, output: &mut Output<'_>) -> Result<(), VerbError> {
    let request = ExplainRequest {
        source: asked.source,
        target: asked.target,
        dscp: asked.dscp,
        protocol: Some(asked.proto),
        port: asked.port,
        source_port: asked.source_port,
        octets: asked.octets,
    };
    let mut client = output.client(config)?;
    let Response::Explained(view) = client.call(Request::Explain(request))? else {
        return Err(client.wrong_answer().into());
    };
    output.answer(&*view, explained)
}

fn explained(view: &ExplainView) -> String {
    let lines = |lines: &[String]| lines.iter().map(|line| format!("  {line}\n")).collect::<String>();
    format!("the packet's path:\n{}why:\n{}", lines(&view.packet.stages), lines(&view.why))
}

pub(super) fn trace(config: &Path, asked: &TraceArgs, output: &mut Output<'_>) -> Result<(), VerbError> {
    let mut client = output.client(config)?;
    let request = TraceRequest {
        addresses: asked.addresses.clone(),
        tag: asked.tag.clone(),
        provider: asked.provider.clone(),
        reason: asked.drop.clone().filter(|reason| !reason.is_empty()),
        dropped: asked.drop.is_some(),
        per_second: Some(asked.rate),
    };
    // Before anything is asked of the box: a file that cannot be written is no reason to trace.
    let mut file = asked.pcapng.as_deref().map(begin).transpose()?;
    let Response::TraceStarted(started) = client.call(Request::TraceStart(request))? else {
        return Err(client.wrong_answer().into());
    };
    let told = follow(&mut client, started.id, asked, file.as_mut(), output);
    // Also if nobody reads any more what is told.
    let stopped = client.call(Request::TraceStop(TraceFetch { id: started.id }));
    let (packets, lost) = told?;
    stopped?;
    let missing =
        if lost > 0 { format!(", {lost} more left out (--rate, or the ring was full)") } else { String::new() };
    output.note(format!("{packets} packets{missing}"))
}

fn follow(
    client: &mut Client,
    id: u64,
    asked: &TraceArgs,
    mut file: Option<&mut Writer<BufWriter<File>>>,
    output: &mut Output<'_>,
) -> Result<(u64, u64), VerbError> {
    let (mut packets, mut waited) = (0, Duration::ZERO);
    loop {
        let Response::Trace(view) = client.call(Request::TraceFetch(TraceFetch { id }))? else {
            return Err(client.wrong_answer().into());
        };
        for record in &view.records {
            packets += 1;
            if let Some(file) = file.as_mut() {
                keep(file, record)?;
            }
            tell(record, output)?;
            if asked.count.is_some_and(|most| packets >= most) {
                return Ok((packets, view.lost));
            }
        }
        output.out.flush()?;
        if asked.seconds.is_some_and(|most| waited >= Duration::from_secs(most)) {
            return Ok((packets, view.lost));
        }
        client.pause(PACE);
        waited += PACE;
    }
}

/// For people a paragraph, for programs a line.
fn tell(record: &TracedView, output: &mut Output<'_>) -> Result<(), VerbError> {
    if output.json {
        let line = serde_json::to_string(record).map_err(io::Error::from)?;
        return Ok(writeln!(output.out, "{line}")?);
    }
    let reason = record.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
    writeln!(output.out, "{:.3} worker {}: {}{reason}", record.at_s, record.worker, record.decision)?;
    for stage in &record.stages {
        writeln!(output.out, "  {stage}")?;
    }
    Ok(())
}

fn begin(path: &Path) -> Result<Writer<BufWriter<File>>, VerbError> {
    let file = File::create(path).map_err(|error| VerbError::Words(format!("{}: {error}", path.display())))?;
    Ok(Writer::new(BufWriter::new(file))?)
}

/// The packet as it came and, if it left, as it left.
fn keep(file: &mut Writer<BufWriter<File>>, record: &TracedView) -> Result<(), VerbError> {
    let story = record.stages.join("\n");
    let mut write = |port: &str, way, packet: &PacketView| {
        let octets = octets(&packet.octets);
        let (at_s, length) = (record.at_s, packet.length);
        file.packet(&Entry { port, way, at_s, octets: &octets, length, comment: &story })
    };
    write(&record.port_in, Way::In, &record.before)?;
    if let Some(port) = &record.port_out {
        write(port, Way::Out, &record.after)?;
    }
    Ok(())
}

/// What hex digits stand for; what is none ends it.
fn octets(hex: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
    hex.as_bytes().chunks(2).map_while(pair).collect()
}
