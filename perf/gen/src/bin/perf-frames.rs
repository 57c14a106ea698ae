//! Writes made-up traffic to captures, for devices that replay them.

#![forbid(unsafe_code)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use perf_gen::capture;
use perf_gen::frames::{Sizes, Way};
use perf_gen::site::Site;

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// Contexts, and so frames.
    #[arg(long, default_value_t = 1000)]
    contexts: u32,
    /// Workers of the box that will see them.
    #[arg(long, default_value_t = 1)]
    workers: u8,
    /// Octets of a host's frame, or imix.
    #[arg(long, default_value = "64", value_parser = Sizes::parse)]
    size: Sizes,
    /// Folder to write out.pcap and in.pcap into; with several queues out0.pcap, out1.pcap and so on.
    #[arg(long)]
    folder: PathBuf,
    /// Files for each way.
    #[arg(long, default_value_t = 1)]
    queues: u32,
    /// Each worker's frames go to its own queue, as a card would steer them; else half of them and more do not.
    #[arg(long)]
    steered: bool,
    /// Of a provider's frames, each of so many is an I1 in the place of payload.
    #[arg(long)]
    flood: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    let given = Arguments::parse();
    let site = Site::new(given.contexts, given.workers);
    for (way, name) in [(Way::Out, "out"), (Way::In, "in")] {
        for queue in 0..given.queues {
            let number = if given.queues == 1 { String::new() } else { queue.to_string() };
            let path = given.folder.join(format!("{name}{number}.pcap"));
            let wanted = |context: u32| match given.steered {
                true => u32::from(site.owner(context)) == queue,
                false => context % given.queues == queue,
            };
            if let Err(error) = capture::write_all(&path, &site, way, &given.size, given.flood, wanted) {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
