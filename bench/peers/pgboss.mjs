// node pgboss.mjs URL COUNT fill: put so many jobs into the line.
// node pgboss.mjs URL COUNT drain: work them off with handlers that do nothing; print when the first fetch was sent
// and when all were completed, in seconds since 1970.
import PgBoss from "pg-boss";
import { order } from "./order.mjs";

const WORKERS = 2;
const BATCH = 5000;

const [url, count, what] = process.argv.slice(2);
const boss = new PgBoss({ connectionString: url });
boss.on("error", (error) => console.error(error));
await boss.start();

if (what === "fill") {
  await boss.createQueue("order");
  for (let done = 0; done < Number(count); done += 1000) {
    await boss.insert(Array.from({ length: 1000 }, () => ({ name: "order", data: order() })));
  }
} else {
  let worked = 0;
  const first = Date.now();
  for (let each = 0; each < WORKERS; each += 1) {
    const worker = await boss.work("order", { batchSize: BATCH, pollingIntervalSeconds: 0.5 }, async (jobs) => {
      worked += jobs.length;
      // Without it the worker waits for the rest of its interval, though more is there.
      boss.notifyWorker(worker);
    });
  }
  // Asks the table only when every handler has been called, so as not to be in the way.
  while (worked < Number(count) || (await boss.getQueueSize("order", { before: "completed" })) > 0) {
    await new Promise((wake) => setTimeout(wake, 10));
  }
  console.log(JSON.stringify({ first: first / 1000, last: Date.now() / 1000, count: worked }));
}
await boss.stop();
