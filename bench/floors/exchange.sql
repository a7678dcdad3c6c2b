-- One statement completes what the one before it claimed, and claims the next :batch in their order.
WITH completed AS (
    UPDATE floor_orders
    SET status = 'completed',
        finished_at = clock_timestamp()
    WHERE order_id = ANY (:ids::uuid[])
),
next AS MATERIALIZED (
    SELECT order_id
    FROM floor_orders
    WHERE status = 'pending'
    ORDER BY seq
    LIMIT :batch
    FOR NO KEY UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE floor_orders
    SET status = 'processing',
        started_at = clock_timestamp()
    FROM next
    WHERE floor_orders.order_id = next.order_id
    RETURNING floor_orders.order_id
)
SELECT COALESCE(array_agg(order_id), '{}') AS ids
FROM claimed
\gset
