-- Another order in each request: those whose ids stand in the file ORDER_IDS, a line each, again and again.
local ids = {}
for line in io.lines(os.getenv("ORDER_IDS")) do
    table.insert(ids, line)
end

local place = 0

function request()
    place = place % #ids + 1
    return wrk.format("GET", "/orders/" .. ids[place])
end
