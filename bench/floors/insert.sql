-- One order, one commit.
INSERT INTO floor_orders (user_id, item_ids, total_amount)
VALUES (gen_random_uuid(), ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()]::text[], 150.75);
