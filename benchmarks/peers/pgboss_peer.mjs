// pg-boss. Settings: default (polls every 2 s, batch of 1); tuned (batch of 1,000, bursts, notify);
// tuned-cap (the same with a batch as large as the concurrency).
import { PgBoss } from 'pg-boss';
import { CONCURRENCY, DSN, SETTING, main, mark, sleep } from './common.mjs';

const TUNED = SETTING.startsWith('tuned');
const BATCH = SETTING === 'tuned' ? 1000 : CONCURRENCY;
const options = TUNED
  ? { batchSize: BATCH, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true }
  : { localConcurrency: CONCURRENCY };
let boss;

async function start(more) {
  boss = new PgBoss({ connectionString: DSN, ...more });
  boss.on('error', error => console.error(error));
  await boss.start();
}

await main({
  async migrate() {
    await this.open();
    for (const queue of ['noop', 'sleep100', 'stranger']) await boss.createQueue(queue, { notify: TUNED });
    await boss.stop();
  },
  open: () => start({ supervise: false, schedule: false }),
  add: payload => boss.send('noop', payload),
  addMany: (task, payloads) => boss.insert(task, payloads.map(data => ({ data }))),
  async work() {
    await start({ useListenNotify: TUNED });
    await boss.work('noop', options, async jobs => { for (const job of jobs) mark(job.data.t); });
    await boss.work('sleep100', options, jobs =>
      Promise.all(jobs.map(async job => { mark(job.data.t); await sleep(100); })));
  },
});
