// graphile-worker. Settings: default; tuned (local queue of 500 and batched completion, the preset
// of its own performance page).
import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker';
import { CONCURRENCY, DSN, SETTING, main, mark, sleep } from './common.mjs';

const connection = { connectionString: DSN, logger: new Logger(() => () => {}) };
const batched = {
  localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};
let utils;

await main({
  migrate: () => runMigrations(connection),
  async open() { utils = await makeWorkerUtils(connection); },
  add: payload => utils.addJob('noop', payload),
  addMany: (task, payloads) => utils.addJobs(payloads.map(payload => ({ identifier: task, payload }))),
  async work() {
    const runner = await run({
      ...connection,
      concurrency: CONCURRENCY,
      maxPoolSize: Math.max(10, Math.min(CONCURRENCY + 4, 40)),
      preset: SETTING === 'tuned' ? { worker: batched } : {},
      taskList: {
        noop: async payload => { mark(payload.t); },
        sleep100: async payload => { mark(payload.t); await sleep(100); },
      },
    });
    await runner.promise;
  },
});
