// BullMQ on Redis. Settings: default; tuned (finished jobs are removed).
import { Queue, Worker } from 'bullmq';
import { CONCURRENCY, REDIS, SETTING, main, mark, sleep } from './common.mjs';

const url = new URL(REDIS);
const connection = {
  host: url.hostname,
  port: Number(url.port),
  db: Number(url.pathname.slice(1) || 0),
  maxRetriesPerRequest: null,
};
const options = SETTING === 'tuned' ? { defaultJobOptions: { removeOnComplete: true } } : {};
let queue;

await main({
  async open() { queue = new Queue('q', { connection, ...options }); },
  add: payload => queue.add('noop', payload),
  addMany: (task, payloads) => queue.addBulk(payloads.map(data => ({ name: task, data }))),
  async work() {
    const handle = async job => {
      mark(job.data.t);
      if (job.name === 'sleep100') await sleep(100);
    };
    new Worker('q', handle, { connection, concurrency: CONCURRENCY });
  },
});
