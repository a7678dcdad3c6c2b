-- A new order in each request, of the size that the peers are measured with.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local hexadecimals = "0123456789abcdef"

local function id()
    local found = {}
    for place = 1, 32 do
        local digit = math.random(16)
        found[place] = hexadecimals:sub(digit, digit)
    end
    return table.concat(found)
end

function order()
    return string.format(
        '{"user_id": "%s", "item_ids": ["%s", "%s", "%s"], "total_amount": 150.75}', id(), id(), id(), id()
    )
end

function init()
    math.randomseed(os.time())
end

function request()
    return wrk.format(nil, nil, nil, order())
end
