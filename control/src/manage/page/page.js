// Asks the daemon and shows what it says. Names in answers come from others: they are only ever written as text.

import { bar, lines } from "/chart.js";
import { clock, duration, element, moment, percent, say, short, table } from "/words.js";

const PERIOD_MS = 2000;
/** An answer later than this is none. */
const PATIENCE_MS = 5000;
const ROWS = 40;

/** The last two looks. */
let before = null;
let now = null;
let policy = null;
let history = null;
let meanings = {};
let advice = {};
/** When there was an answer, and when there was none for the first time since. */
let answered = null;
let silent = null;

async function ask(place) {
  const answer = await fetch(place, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!answer.ok) throw new Error(`${place}: status ${answer.status}`);
  return answer.json();
}

async function turn() {
  const begun = performance.now();
  try {
    const metrics = await ask("/v1/metrics");
    if (now && metrics.at_s < now.at_s) {
      // Another life of the daemon's: nothing of the one before goes on.
      now = history = null;
    }
    [before, now] = [now, metrics];
    if (!Object.keys(advice).length || !before) {
      const counters = await ask("/v1/counters");
      [meanings, advice] = [counters.descriptions, counters.advice];
    }
    policy = await ask("/v1/policy");
    await remember();
    [answered, silent] = [new Date(), null];
    show();
  } catch (reason) {
    silent ??= new Date();
    complain(reason);
  }
  setTimeout(turn, Math.max(200, PERIOD_MS - (performance.now() - begun)));
}

/** Takes in the looks there are since the last time. */
async function remember() {
  const news = await ask(history ? `/v1/history?from=${history.next}` : "/v1/history");
  if (!history || news.first !== history.next) {
    history = news.first && history ? await ask("/v1/history") : news;
    return;
  }
  const length = history.at_s.length;
  for (const name of ["at_s", "contexts", "exploring", "failovers", "drops_per_s"]) history[name].push(...news[name]);
  const columns = ["up", "out_mbps", "in_mbps", "out_target_mbps", "in_target_mbps"];
  const gap = (count) => new Array(count).fill(null);
  for (const its of news.providers) {
    let kept = history.providers.find((it) => it.name === its.name);
    if (!kept) {
      kept = { name: its.name };
      for (const column of columns) kept[column] = gap(length);
      history.providers.push(kept);
    }
  }
  for (const kept of history.providers) {
    const its = news.providers.find((it) => it.name === kept.name);
    for (const column of columns) kept[column].push(...(its ? its[column] : gap(news.at_s.length)));
  }
  history.next = news.next;
  const over = history.at_s.length - history.max;
  if (over > 0) {
    for (const name of ["at_s", "contexts", "exploring", "failovers", "drops_per_s"]) history[name].splice(0, over);
    for (const kept of history.providers) for (const column of columns) kept[column].splice(0, over);
  }
}

function complain(reason) {
  const since = answered ? `since ${clock(answered)} (${duration((Date.now() - answered) / 1000)})` : `since ${clock(silent)}`;
  const figures = answered ? " The figures below are those of then." : "";
  say("stale", `Stale: no answer from the daemon ${since}.${figures} ${reason.message}`);
  document.getElementById("stale").hidden = false;
  document.body.classList.add("stale");
}

function show() {
  document.getElementById("stale").hidden = true;
  document.body.classList.remove("stale");
  draw();
}

function draw() {
  const { status } = now;
  document.title = `${status.name}: ${status.ready ? "ready" : "NOT READY"}`;
  say("name", status.name);
  say("ready", status.ready ? "ready" : "NOT READY", status.ready ? "good" : "bad");
  say("uptime", duration(status.uptime_s));
  say("contexts-total", `${short(status.contexts.total)} of ${short(status.contexts.max)}`);
  say("hosts", status.hosts);
  say("version", status.version);
  say("as-of", clock(answered));
  providers(status);
  classes();
  paths(now);
  contexts(status.contexts);
  failovers(now.failovers);
  drops(now.counters.counters);
  ports(status.ports);
  workers(status.workers);
}

/** How fast a count went up between the last two looks; unknown before there are two. */
function rate(of) {
  if (!before) return null;
  const [old, count] = [of(before), of(now)];
  if (old === undefined || count === undefined || now.at_s <= before.at_s) return null;
  return Math.max(0, count - old) / (now.at_s - before.at_s);
}

const state = (up) => (up ? ["up", "good"] : ["DOWN", "bad"]);

/** Parts of their sum, for each look; unknown where nothing is carried or one of them is unknown. */
function shares(columns) {
  const parts = columns.map(() => []);
  history.at_s.forEach((_, at) => {
    const there = columns.filter((column, which) => history.providers[which].up[at] !== null);
    const sum = there.reduce((total, column) => total + (column[at] ?? NaN), 0);
    columns.forEach((column, which) => parts[which].push(sum > 1e-4 && column[at] !== null ? column[at] / sum : null));
  });
  return parts;
}

function providers(status) {
  const named = (column) => history.providers.map((it) => it[column]);
  const of = { out: shares(named("out_mbps")), in: shares(named("in_mbps")) };
  const wanted = { out: shares(named("out_target_mbps")), in: shares(named("in_target_mbps")) };
  const end = history.at_s.length - 1;
  const rows = status.providers.map((it) => {
    const which = history.providers.findIndex((kept) => kept.name === it.name);
    const its = (columns) => (which < 0 || end < 0 ? null : columns[which][end]);
    const carried = (column) => (which < 0 || end < 0 ? null : history.providers[which][column][end]);
    const flow = (mbps) => (mbps === null ? "-" : short(mbps * 1e6));
    const use = { drain: ["DRAINED", "warn"], avoid: ["avoided", "warn"], prefer: ["preferred", ""], normal: ["normal", ""] };
    const router = it.next_hop_resolved ? [it.next_hop, ""] : [`${it.next_hop} does not answer`, "bad"];
    return [
      it.name, state(it.up), it.leaving ? ["leaving", "warn"] : (use[it.steering] ?? it.steering), it.port, short(it.contexts),
      flow(carried("out_mbps")), percent(its(of.out)), percent(its(wanted.out)),
      flow(carried("in_mbps")), percent(its(of.in)), percent(its(wanted.in)), it.prefix, router,
    ];
  });
  const heads = ["provider", "state", "use", "port", ">contexts"];
  for (const way of ["out", "in"]) heads.push(`>${way} bit/s`, `>${way} share`, `>${way} target`);
  table("providers", [...heads, "prefix", "router"], rows, "There is no provider.");
  say("share-note", policy.loaded
    ? "Shares are of what contexts carry; targets are those of the policy."
    : "There is no policy, so there are no targets; shares are of all that passes the providers' ports.");
  for (const way of ["out", "in"]) {
    const series = history.providers.map((it, at) => {
      const targets = wanted[way][at].some((part) => part !== null) ? wanted[way][at] : undefined;
      return { name: it.name, values: of[way][at], targets };
    });
    const label = `Share of what ${way === "out" ? "leaves" : "arrives"} by provider, over time`;
    lines(`chart-${way}`, history.at_s, series, { top: 1, write: percent, label });
  }
}

function classes() {
  document.getElementById("s-classes").hidden = !policy.loaded;
  if (!policy.loaded) return;
  say("moves", `moves: ${policy.moves_done} done, ${policy.moves_failed} failed, ${policy.moves_ordered} ordered`);
  const wanted = (share) => (share.target_mbps === null || share.target_mbps === undefined ? "-" : short(share.target_mbps * 1e6));
  const rows = policy.classes.flatMap((it) => it.out.map((out, at) => {
    const inward = it.in[at];
    return [it.name, out.provider, short(out.contexts), short(out.mbps * 1e6), wanted(out), short(inward.mbps * 1e6), wanted(inward)];
  }));
  const heads = ["class", "provider", ">contexts", ">out bit/s", ">out target", ">in bit/s", ">in target"];
  table("classes", heads, rows, "The policy has no classes.");
}

function paths(metrics) {
  const worst = ["down", "unknown"];
  const order = (path) => (worst.includes(path.state) ? worst.indexOf(path.state) : worst.length);
  const all = [...metrics.paths].sort((a, b) => order(a) - order(b) || b.contexts - a.contexts);
  const more = metrics.paths_left_off + Math.max(0, all.length - ROWS);
  say("paths-more", more ? `and ${short(more)} more` : "");
  const looks = { up: "good", down: "bad", unknown: "warn" };
  const ago = (seconds) => (seconds === null || seconds === undefined ? "-" : `${duration(seconds)} ago`);
  const rows = all.slice(0, ROWS).map((it) => [
    it.provider, it.peer_prefix, [it.state === "down" ? "DOWN" : it.state, looks[it.state] ?? ""], short(it.contexts),
    it.rtt_ms === null ? "-" : moment(it.rtt_ms / 1000), ago(it.last_in_s), ago(it.last_out_s), it.evidence,
  ]);
  const heads = ["provider", "to", "state", ">contexts", ">round trip", ">last in", ">last out", "~because"];
  table("paths", heads, rows, "No path is in use.");
}

function contexts(counts) {
  const looks = (count, look) => (count ? look : "");
  table("contexts", ["state", ">contexts"], [
    ["established", short(counts.established)],
    ["exploring (of those)", [short(counts.exploring), looks(counts.exploring, "warn")]],
    ["opening", short(counts.opening)],
    ["failed, left alone", [short(counts.failed), looks(counts.failed, "warn")]],
    ["peer without Shim6", short(counts.no_support)],
  ]);
  const series = [
    { name: "contexts", values: history.contexts },
    { name: "exploring", values: history.exploring },
  ];
  lines("chart-contexts", history.at_s, series, { height: 90, label: "Contexts over time" });
}

function failovers(times) {
  const count = times.buckets.reduce((sum, bucket) => sum + bucket.count, 0);
  const at = history.failovers.findLastIndex((it) => it > 0);
  let words = `${short(count)} since the start`;
  if (count) words += `, ${moment(times.sum_s / count)} on average`;
  if (at >= 0) {
    const ago = now.at_s - history.at_s[at];
    words += `; the last one ${duration(ago)} ago (${clock(new Date(Date.now() - 1000 * ago))})`;
  } else if (count) {
    words += "; none in the time shown below";
  }
  say("failovers-said", `${words}.`);
  const most = Math.max(1, ...times.buckets.map((bucket) => bucket.count));
  const rows = times.buckets.filter((bucket) => bucket.count).map((it) => [`< ${moment(it.below_s)}`, short(it.count), bar(it.count / most)]);
  table("failovers", ["took", ">times", ""], rows, "None so far.");
  const series = [{ name: "failovers", values: history.failovers }];
  lines("chart-failovers", history.at_s, series, { height: 90, label: "Failovers over time" });
}

function drops(counters) {
  const all = Object.entries(counters).filter(([name, count]) => name.startsWith("drop_") && count > 0);
  const rows = all.map(([name, count]) => ({ name, count, speed: rate((metrics) => metrics.counters.counters[name]) }));
  rows.sort((a, b) => (b.speed ?? 0) - (a.speed ?? 0) || b.count - a.count);
  const shown = rows.slice(0, 10).map((it) => {
    const name = element("span", it.name.replace(/^drop_/, ""));
    return [name, short(it.speed), short(it.count), meanings[it.name] ?? "-", advice[it.name] ?? "-"];
  });
  const heads = ["reason", ">per second", ">in all", "~what it is", "~what to do"];
  table("drops", heads, shown, "Nothing was dropped.");
  const series = [{ name: "dropped per second", values: history.drops_per_s }];
  lines("chart-drops", history.at_s, series, { height: 90, label: "Packets dropped a second over time" });
}

function ports(list) {
  const of = (name, field) => (metrics) => metrics.status.ports.find((it) => it.name === name)?.[field];
  const bits = (value) => (value === null ? null : 8 * value);
  const rows = list.map((it) => {
    const lost = rate(of(it.name, "rx_missed")) === null ? null : rate(of(it.name, "rx_missed")) + rate(of(it.name, "tx_dropped"));
    return [
      it.name, state(it.link_up), it.device, short(it.mtu),
      short(rate(of(it.name, "rx_packets"))), short(bits(rate(of(it.name, "rx_octets")))),
      short(rate(of(it.name, "tx_packets"))), short(bits(rate(of(it.name, "tx_octets")))),
      [short(lost), lost ? "bad" : ""], it.mac,
    ];
  });
  const heads = ["port", "link", "device", ">MTU", ">in/s", ">in bit/s", ">out/s", ">out bit/s", ">lost/s", "address"];
  table("ports", heads, rows, "There is no port.");
}

function workers(list) {
  const of = (id, field) => (metrics) => metrics.status.workers.find((it) => it.id === id)?.[field];
  const rows = list.map((it) => {
    const busy = rate((metrics) => metrics.turns[it.id]?.sum_s);
    return [
      it.id, it.core ?? "any", short(it.contexts), short(rate(of(it.id, "packets_in"))), short(rate(of(it.id, "packets_out"))),
      short(rate(of(it.id, "dropped"))), percent(busy === null ? null : Math.min(1, busy)),
    ];
  });
  table("workers", ["worker", ">core", ">contexts", ">in/s", ">out/s", ">dropped/s", ">busy"], rows, "There is no worker.");
}

/** Charts are as wide as there is room, so they are drawn again where that is another. */
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  if (now && policy && history) resized = setTimeout(draw, 150);
});

turn();
