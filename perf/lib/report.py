"""A result as Markdown and plots."""

from . import load, machine, stats, svg
from .replay import MODES

TITLES = {"worker": "whole turn", "labelled": "by label", "missing": "stages, a tenth misses"}
ORDER = (*MODES, "box")


def markdown(name, result):
    parts = [f"# {name}", "", intro(result), ""]
    for part, write in (
        ("stages", stages),
        ("failover", failover),
        ("replay", lambda rows: forwarding("The whole box on replayed captures", REPLAY, rows)),
        ("flood", floods),
        ("wire", lambda rows: forwarding("The whole box behind memif", WIRE, rows)),
        ("rates", rates),
        ("latency", latency),
        ("reload", reload),
        ("soak", soak),
        ("scale", scale),
        ("handshakes", handshakes),
    ):
        if result.get(part):
            parts += [*write(result[part]), ""]
    parts += [f"{machine.line(result['machine'])}; commit {result['commit']}, {result['taken']}; "
              f"load {result['load_before']} before, {result['load_after']} after; "
              f"{sum(result.get('seconds', {}).values()):.0f} seconds.", ""]
    return "\n".join(parts)


def intro(result):
    return (
        f"Taken by `perf/run{' --quick' if result['mode'] == 'quick' else ''}`. Ratios (×) are medians over rounds in which "
        "everything in a row was measured in turn; the samples are in the JSON file of the same name."
    )


def stages(found):
    lines = [
        "## Stages alone",
        "",
        "Nanoseconds per packet, 64-octet frames, contexts in random order, one core. *Floor* touches the same memory and "
        "writes the same headers, and does nothing else.",
        "",
        *stages_table(found["results"]),
    ]
    if found.get("zipf"):
        lines += ["", "The same where some contexts have most of the packets (Zipf's law, exponent 1):", ""]
        lines += stages_table(found["zipf"])
    if found.get("misses"):
        lines += ["", "And where each tenth packet has no context: from the site it would be held, from outside its tag is unknown:", ""]
        lines += stages_table(found["misses"])
    counted = found.get("instructions")
    if counted:
        kinds = list(counted)
        lines += ["", "Instructions per packet, counted by callgrind at 1,024 contexts:", ""]
        lines += [f"| direction | {' | '.join(TITLES.get(kind, kind) for kind in kinds)} |", "|---|" + "---:|" * len(kinds)]
        for direction in ("egress", "ingress"):
            lines.append(f"| {direction} | {' | '.join(f'{counted[kind][direction]:.0f}' for kind in kinds)} |")
    return lines


def stages_table(rows):
    second = next(kind for kind in TITLES if kind in rows[0])
    lines = [
        f"| contexts | direction | floor | stages | × | {TITLES[second]} | × |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        a, b, floor = row["stages"], row[second], row["floor"]
        lines.append(
            f"| {row['contexts']:,} | {row['direction']} | {floor['ns']:.1f} | {a['ns']:.1f} | {a['to_floor']:.2f} "
            f"| {b['ns']:.1f} | {b['to_floor']:.2f} |"
        )
    return lines


REPLAY = (
    "Million packets per second. `net_pcap` replays a capture with one frame of each context, in random order. *out* and *in* "
    "say where it comes in, *both* replays on both sides. With *-null* the other side is a plain `net_null`, which returns as "
    "many empty frames: testpmd swaps and sends them, the box drops them, and only replayed frames count. With several workers "
    "half of the frames and more arrive at one that does not own their context, which gets copies of them; with *steered* none."
)
WIRE = (
    "Million packets per second through a server of two memif devices, the generator sending all that is taken; both have a "
    "core."
)


def forwarding(title, text, rows):
    lines = [f"## {title}", "", text, ""]
    lines += ["| contexts | way | frame | workers | io | macswap | 5tswap | box | ns | × 5tswap | 95 % | × io |"]
    lines += ["|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|"]
    for row in rows:
        mpps, to = row["mpps"], row["to"]
        samples = row["samples_pps"]
        low, high = stats.interval(stats.ratios(samples["box"], samples["5tswap"]))
        law = f", {row['law']}" if row.get("law", "uniform") != "uniform" else ""
        lines.append(
            f"| {row['contexts']:,} | {row['way']}{law} | {row['size']} | {row['workers']} "
            f"| {' | '.join(f'{mpps[name]:.2f}' for name in ORDER)} | {row['ns']:.1f} "
            f"| **{to['5tswap']:.2f}** | {low:.2f}–{high:.2f} | {to['io']:.2f} |"
        )
    return lines + several(rows)


def several(rows):
    """How much more so many workers do than one."""
    rows = [row for row in rows if row.get("scaling")]
    if not rows:
        return []
    lines = ["", "Several workers beside one, in the same rounds:", ""]
    lines += ["| contexts | way | workers | 5tswap, one | several | × | box, one | several | × | 95 % |"]
    lines += ["|---:|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        cells = [f"{row['contexts']:,}", row["way"], str(row["workers"])]
        for name in ("5tswap", "box"):
            cells += [f"{row['mpps'][name + ' alone']:.2f}", f"{row['mpps'][name]:.2f}", f"**{row['scaling'][name]:.2f}**"]
        samples = row["samples_pps"]
        low, high = stats.interval(stats.ratios(samples["box"], samples["box alone"]))
        lines.append(f"| {' | '.join(cells)} | {low:.2f}–{high:.2f} |")
    return lines


def rates(rows):
    lines = [
        "## Rates without loss",
        "",
        "Million packets per second by MLRsearch's rules for trials: without any loss (NDR), with at most 0.5 % (PDR), and "
        "with everything sent (MRR). Both directions at once.",
        "",
        "| what | contexts | frame | NDR | PDR | MRR | trials |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        three = [f"{row[name] / 1e6:.2f}" if row[name] else "none" for name in ("ndr_pps", "pdr_pps", "mrr_pps")]
        lines.append(f"| {row['name']} | {row['contexts']:,} | {row['size']} | {' | '.join(three)} | {len(row['trials'])} |")
    return lines


def latency(rows):
    lines = [
        "## Latency",
        "",
        "Microseconds from generator to generator, at shares of the box's rate with at most 0.5 % loss (for testpmd the same "
        "loads). Of each the round with the median p50. *Away* is for how long in that round another ran on the core of who "
        "is measured (in all), or the generator did not look (at the longest), or the machine below did not run: beyond the "
        f"limits of `perf/lib/load.py` rounds are made again, up to {load.TRIES} times, and then the least disturbed counts. "
        "*Disturbed* is how many of the rounds were so all the same.",
        "",
        "| what | load | p50 | p90 | p99 | p99.9 | p99.99 | most | lost | away | disturbed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        for share, at in row["shares"].items():
            values = (at[name] / 1e3 for name in ("p50", "p90", "p99", "p999", "p9999", "max"))
            lines.append(
                f"| {row['name']} | {share} | {' | '.join(f'{value:.1f}' for value in values)} | {at['loss_ratio']:.3%} "
                f"| {' / '.join(str(away) for away in at.get('away_us', {}).values())} | {at.get('disturbed', '')} |"
            )
    return lines


def reload(found):
    return [
        "## Reload under load",
        "",
        f"{found['reloads']} reloads in a second at {found['rate_pps'] / 1e6:.2f} million packets per second: "
        f"{found['lost']:,} frames lost, and {found['lost_without']:,} in a second without reloads. If all of them were the "
        f"reloads' fault, each blocked the box for {found['blocked_us_per_reload']:.1f} µs. Away, as above: "
        f"{' / '.join(str(away) for away in found.get('away_us', {}).values())}.",
    ]


def soak(found):
    return [
        "## Long run",
        "",
        f"{found['received']:,} frames in {found['trials']} trials at {found['rate_pps'] / 1e6:.2f} million packets per "
        f"second: {found['loss_ratio']:.4%} lost, {found['worst_trial']:.4%} in the worst trial, {found['late']:,} overtaken.",
    ]


def failover(found):
    lines = [
        "## A provider is lost",
        "",
        "The turn that takes in the command, after which each context's packets leave by its standby (looked at for all of "
        "them), and microseconds per burst of 32 packets of contexts that lost theirs and of bystanders, before and after. Beside "
        "them a plain loop over other memory; *late* are those above 100 µs, in each second of such bursts.",
        "",
        "| contexts | turn, ns | most | idle turn | back | whose | before: p50 | p99.9 | most | late | after: p50 | p99.9 | most | late |",
        "|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["results"]:
        turn = f"{row['contexts']:,} | {row['lost_turn_ns']:,} | {row['lost_turn_most_ns']:,} | {row['idle_turn_ns']:,} | {row['back_turn_ns']:,}"
        for who in ("affected", "bystander", "plain_loop"):
            times = []
            for found_then in (row[who][when] for when in ("before", "after")):
                times += [found_then[what] for what in ("p50_us", "p999_us", "most_us")]
                times.append(found_then["late"] / found_then["seconds"])
            lines.append(f"| {turn} | {who} | {' | '.join(f'{time:.1f}' for time in times)} |")
    return [*lines, "", f"From the fewest contexts to the most the turn takes {found['ratio']:.2f} times as long."]


def scale(found):
    lines = [
        "## Many contexts",
        "",
        "| contexts | octets each | installed per second |",
        "|---:|---:|---:|",
    ]
    for row in found.get("fill", []):
        lines.append(f"| {row['contexts']:,} | {row['octets_per_context']:.1f} | {row['installs_per_second']:,} |")
    lines += [
        "",
        "Removed and installed again, as fast as the worker takes it, while traffic of other contexts is replayed on both "
        "sides:",
        "",
        "| contexts | removed and installed per second | Mpps meanwhile | Mpps without | dropped |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in found.get("churn", []):
        lines.append(
            f"| {row['contexts']:,} | {row['churned_per_second']:,} | {row['pps_meanwhile'] / 1e6:.2f} "
            f"| {row['pps_without'] / 1e6:.2f} | {row['dropped_meanwhile']:,} |"
        )
    apart = [row for row in found.get("churn", []) if "installed_per_second" in row]
    if apart:
        lines += ["", "The same, but a quarter of all contexts removed first, and then installed:", ""]
        lines += ["| contexts | removed per second | installed per second | Mpps while installing |", "|---:|---:|---:|---:|"]
    for row in apart:
        lines.append(
            f"| {row['contexts']:,} | {row['removed_per_second']:,} | {row['installed_per_second']:,} "
            f"| {row['pps_while_installing'] / 1e6:.2f} |"
        )
    return lines


def floods(rows):
    lines = [
        "## A flood of I1s",
        "",
        "One of five of a provider's replayed frames is an I1; the box with them and without in turn. All payload was translated, and "
        "all I1s were given to control or refused by its rate, or the run would have failed.",
        "",
        "| contexts | I1s per second | of them to control | payload, Mpps | without I1s | octets grown |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['contexts']:,} | {row['i1s_per_second']:,} | {row['punted_per_second']:,} | {row['payload_pps'] / 1e6:.2f} "
            f"| {row['payload_pps_without'] / 1e6:.2f} | {row['octets_grown']:,} |"
        )
    return lines


def handshakes(rows):
    lines = [
        "## Setting contexts up",
        "",
        "Handshakes per second of the control core's responder, I1 and I2 in, R1 and R2 out, each peer with two locators that "
        "were never seen before; and a flood of I1s.",
        "",
        "| locators proved by | handshakes per second | I1s per second in a flood | octets a flood leaves |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['proof']} | {row['handshakes_per_second']:,} | {row['flood_i1_per_second']:,} | {row['flood_octets']:,} |"
        )
    return lines


def plots(result):
    """(name, SVG) for what there is."""
    if result.get("stages"):
        yield "stages", plot_stages(result["stages"]["results"])
    for part, title in (("replay", "on replayed captures"), ("wire", "behind memif")):
        rows = [row for row in result.get(part) or [] if row["size"] == "64" and row["workers"] == 1]
        if rows:
            yield part, plot_forwarding(f"Whole box {title}, 64 octets, one worker", rows)
    if result.get("latency"):
        yield "latency", plot_latency(result["latency"])


def plot_stages(rows):
    kinds = [kind for kind in rows[0] if isinstance(rows[0][kind], dict)]
    series = []
    for direction in ("egress", "ingress"):
        for kind in kinds:
            points = [(row["contexts"], row[kind]["ns"]) for row in rows if row["direction"] == direction]
            series.append((f"{TITLES.get(kind, kind)}, {direction}", points))
    return svg.lines("Translation without I/O", "contexts", "ns per packet", series)


def plot_forwarding(title, rows):
    groups = []
    for row in rows:
        values = []
        for name in ORDER:
            samples = [one / 1e6 for one in row["samples_pps"][name]]
            values.append((stats.median(samples), *stats.interval(samples)))
        groups.append((f"{svg.short(row['contexts'])} {row['way']}", values))
    return svg.bars(title, "million packets per second", groups, ORDER)


def plot_latency(rows):
    names = ("p50", "p90", "p99", "p999")
    series = []
    for row in rows:
        for share, at in row["shares"].items():
            points = [(1 / (1 - place), at[name] / 1e3) for name, place in zip(names, (0.5, 0.9, 0.99, 0.999))]
            series.append((f"{row['name']}, {share}", points))
    return svg.lines("Latency: one frame in so many is slower", "frames", "µs", series)
