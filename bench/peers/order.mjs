// The order that every peer written in JavaScript is given, of the size that all are measured with.
import { randomUUID } from "node:crypto";

export function order() {
  return { user_id: randomUUID(), item_ids: [randomUUID(), randomUUID(), randomUUID()], total_amount: 150.75 };
}
