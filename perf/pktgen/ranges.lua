-- Hosts and peers by Pktgen's ranges: every packet has the next host and the next peer. From the site alone, because Pktgen
-- has no payload header to put in (see captures.lua for both directions).

local common = dofile(os.getenv("PSHIM6_PKTGEN") .. "/common.lua")

pktgen.screen("off")
pktgen.set_range("0", "on")
pktgen.range.set_type("0", "ipv6")
pktgen.range.ip_proto("0", "udp")
pktgen.range.dst_mac("0", "start", common.box)
pktgen.range.src_mac("0", "start", common.other)
pktgen.range.hop_limits("0", "start", 64)
pktgen.range.hop_limits("0", "min", 64)
pktgen.range.hop_limits("0", "max", 64)
pktgen.range.hop_limits("0", "inc", 0)

-- Host and peer of a context follow from its number (perf/gen/src/site.rs): 256 hosts, and a peer for each context. They
-- stay in step because the number of contexts is a multiple of that of the hosts.
local hosts = 256
assert(common.contexts % hosts == 0, "contexts come in multiples of 256")
local function address(prefix, number)
	return string.format("%s:%x:%x", prefix, number // 65536, number % 65536)
end
local function range(set, prefix, from, to)
	set("0", "start", address(prefix, from))
	set("0", "min", address(prefix, from))
	set("0", "max", address(prefix, to))
	set("0", "inc", "::1")
end
range(pktgen.range.src_ip, "fc00:a:0:1:0:0", 16, 16 + hosts - 1)
range(pktgen.range.dst_ip, "fc00:b:0:1:0:0", 0, common.contexts - 1)
for _, port in ipairs({ "src_port", "dst_port" }) do
	for what, value in pairs({ start = 1024, min = 1024, max = 1024, inc = 0 }) do
		pktgen.range[port]("0", what, value)
	end
end
-- Pktgen counts the frame's checksum, which software devices do not carry.
for what, value in pairs({ start = common.size + 4, min = common.size + 4, max = common.size + 4, inc = 0 }) do
	pktgen.range.pkt_size("0", what, value)
end

local best, trials = common.search("0", tonumber(os.getenv("PSHIM6_MOST") or "100"))
common.finish("ranges", best, trials)
