-- Both directions: a capture of the hosts' frames on port 0, one of the provider's with payload headers on port 1, as
-- perf-frames writes them. `run` hands both to Pktgen by its option -s.

local common = dofile(os.getenv("PSHIM6_PKTGEN") .. "/common.lua")

pktgen.screen("off")
pktgen.pcap("0,1", "on")
local best, trials = common.search("0,1", tonumber(os.getenv("PSHIM6_MOST") or "100"))
common.finish("captures", best, trials)
