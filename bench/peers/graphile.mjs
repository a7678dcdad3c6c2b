// node graphile.mjs URL COUNT fill: put so many jobs into the line.
// node graphile.mjs URL COUNT drain: work them off with a handler that does nothing; when the line is empty, print
// the time of the first and of the last call of the handler, in seconds since 1970: before its last completions.
// node graphile.mjs URL COUNT stamp: print each job's user_id and the time of its handler, for so many.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { order } from "./order.mjs";

const [url, count, what] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url, max: 12 });
// Without them it warns on each start.
pool.on("error", console.error);
pool.on("connect", (client) => client.on("error", console.error));
const logger = new Logger(() => () => {});

if (what === "fill") {
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  await utils.migrate();
  await pool.query("TRUNCATE graphile_worker._private_jobs");
  for (let done = 0; done < Number(count); done += 1000) {
    await utils.addJobs(Array.from({ length: 1000 }, () => ({ identifier: "order", payload: order() })));
  }
  await utils.release();
} else if (what === "stamp") {
  let left = Number(count);
  const runner = await run({
    pgPool: pool,
    logger,
    noHandleSignals: true,
    taskList: {
      order(job) {
        console.log(`${job.user_id} ${(performance.timeOrigin + performance.now()) / 1000}`);
        left -= 1;
        if (left === 0) setTimeout(() => runner.stop(), 100);
      },
    },
  });
  await runner.promise;
} else {
  let first = 0;
  let last = 0;
  let worked = 0;
  const runner = await run({
    pgPool: pool,
    logger,
    preset: {
      worker: {
        concurrentJobs: 24,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        pollInterval: 100,
      },
    },
    noHandleSignals: true,
    taskList: {
      order() {
        last = Date.now();
        first ||= last;
        worked += 1;
      },
    },
  });
  for (;;) {
    await new Promise((wake) => setTimeout(wake, 200));
    const left = await pool.query("SELECT 1 FROM graphile_worker._private_jobs LIMIT 1");
    if (left.rowCount === 0) break;
  }
  await runner.stop();
  console.log(JSON.stringify({ first: first / 1000, last: last / 1000, count: worked }));
}
await pool.end();
