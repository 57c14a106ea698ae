-- What the scenarios share: trials at a rate, a search for the highest one that loses no more than is allowed, and the
-- result as JSON. Settings come from the environment, because Pktgen hands a script no arguments; `run` sets them.

local common = {}

local function setting(name, usual)
	local text = os.getenv("PSHIM6_" .. name)
	if text == nil or text == "" then return usual end
	return tonumber(text) or text
end

common.contexts = setting("CONTEXTS", 1024)
common.size = setting("SIZE", 64)
common.seconds = setting("SECONDS", 2)
common.loss = setting("LOSS", 0.0)
common.width = setting("WIDTH", 0.05)
common.result = setting("RESULT", "pktgen.json")
common.box = setting("BOX_MAC", "02:00:00:00:00:01")
common.other = setting("OTHER_MAC", "02:00:00:00:00:02")

-- Frames counted on both ports since the start. Pktgen reads its devices once a second.
local function counters()
	pktgen.sleep(2)
	local stats = pktgen.portStats("0,1", "port")
	return { sent = stats[0].opackets + stats[1].opackets, received = stats[0].ipackets + stats[1].ipackets }
end

-- Sends at `rate`, in percent of the link's, for some seconds; the share that was lost, and frames per second sent.
function common.trial(ports, rate, seconds)
	pktgen.set(ports, "rate", string.format("%.4f", rate))
	local before = counters()
	pktgen.start(ports)
	pktgen.delay(math.floor(seconds * 1000))
	pktgen.stop(ports)
	local after = counters()
	local sent, received = after.sent - before.sent, after.received - before.received
	local lost = sent > 0 and math.max(0, (sent - received) / sent) or 1
	return { rate = rate, sent = sent, received = received, lost = lost, pps = sent / seconds }
end

-- RFC 2544, 26.1: halves the interval until it is narrow. `most` is in percent of the link's rate.
function common.search(ports, most)
	local trials, low, high, best = {}, 0, most, nil
	local first = common.trial(ports, most, common.seconds)
	trials[1] = first
	-- What came through when everything was sent is a better beginning than the middle.
	local rate = most * (1 - first.lost)
	if first.lost <= common.loss then
		best, low = first, most
	end
	while high - low > common.width * high and #trials < 20 do
		local found = common.trial(ports, rate, common.seconds)
		trials[#trials + 1] = found
		if found.lost <= common.loss then
			best, low = found, rate
		else
			high = rate
		end
		rate = (low + high) / 2
	end
	return best, trials
end

local function encode(value)
	if type(value) ~= "table" then
		return type(value) == "string" and string.format("%q", value) or value == nil and "null" or tostring(value)
	end
	local parts = {}
	if #value > 0 then
		for _, one in ipairs(value) do parts[#parts + 1] = encode(one) end
		return "[" .. table.concat(parts, ",") .. "]"
	end
	for name, one in pairs(value) do parts[#parts + 1] = string.format("%q:%s", name, encode(one)) end
	return "{" .. table.concat(parts, ",") .. "}"
end

function common.finish(scenario, best, trials)
	local file = assert(io.open(common.result, "w"))
	local found = { scenario = scenario, contexts = common.contexts, size = common.size, trials = trials }
	if best ~= nil then found.best = best end
	file:write(encode(found), "\n")
	file:close()
	pktgen.quit()
end

return common
