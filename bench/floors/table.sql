-- The bare tables of the floors: what an order is, its ticket and its state, and nothing that keeps it right.
DROP TABLE IF EXISTS floor_orders, floor_ledger;

CREATE TABLE floor_orders (
    order_id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    user_id text NOT NULL,
    item_ids text[] NOT NULL,
    total_amount numeric(14, 2) NOT NULL,
    status text DEFAULT 'pending' NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    started_at timestamptz,
    finished_at timestamptz
);

CREATE INDEX floor_line ON floor_orders (seq) WHERE status = 'pending';

CREATE TABLE floor_ledger (
    order_id uuid NOT NULL,
    amount numeric(14, 2) NOT NULL
);
