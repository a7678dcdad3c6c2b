-- A thousand orders in each request; they are made once, since making them is not what is measured.
local function id(number)
    return string.format("%032x", number)
end

local orders = {}
for number = 1, 1000 do
    orders[number] = string.format(
        '{"user_id": "%s", "item_ids": ["%s", "%s", "%s"], "total_amount": 150.75}',
        id(number), id(number + 1000), id(number + 2000), id(number + 3000)
    )
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"orders": [' .. table.concat(orders, ", ") .. "]}"
