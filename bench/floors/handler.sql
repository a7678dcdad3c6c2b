-- Claim ten, then complete each in a transaction that also writes a row of its own.
WITH next AS MATERIALIZED (
    SELECT order_id
    FROM floor_orders
    WHERE status = 'pending'
    ORDER BY seq
    LIMIT 10
    FOR NO KEY UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE floor_orders
    SET status = 'processing',
        started_at = clock_timestamp()
    FROM next
    WHERE floor_orders.order_id = next.order_id
    RETURNING floor_orders.order_id
),
numbered AS (
    SELECT array_agg(order_id) AS ids
    FROM claimed
)
SELECT COALESCE(ids[1], gen_random_uuid()) AS id1,
       COALESCE(ids[2], gen_random_uuid()) AS id2,
       COALESCE(ids[3], gen_random_uuid()) AS id3,
       COALESCE(ids[4], gen_random_uuid()) AS id4,
       COALESCE(ids[5], gen_random_uuid()) AS id5,
       COALESCE(ids[6], gen_random_uuid()) AS id6,
       COALESCE(ids[7], gen_random_uuid()) AS id7,
       COALESCE(ids[8], gen_random_uuid()) AS id8,
       COALESCE(ids[9], gen_random_uuid()) AS id9,
       COALESCE(ids[10], gen_random_uuid()) AS id10
FROM numbered
\gset
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id1::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id1::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id2::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id2::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id3::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id3::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id4::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id4::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id5::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id5::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id6::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id6::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id7::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id7::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id8::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id8::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id9::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id9::uuid;
COMMIT;
BEGIN;
INSERT INTO floor_ledger (order_id, amount) SELECT order_id, total_amount FROM floor_orders WHERE order_id = :id10::uuid;
UPDATE floor_orders SET status = 'completed', finished_at = clock_timestamp() WHERE order_id = :id10::uuid;
COMMIT;
