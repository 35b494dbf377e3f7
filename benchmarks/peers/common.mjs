// What every Node peer shares: its environment, the commands, and the marks of started jobs.
// The same as common.py does it.
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const env = process.env;
export const DSN = env.BENCH_DSN;
export const REDIS = env.BENCH_REDIS;
export const SETTING = env.BENCH_SETTING ?? 'default';
export const CONCURRENCY = Number(env.BENCH_CONCURRENCY ?? 10);
const RUN = env.BENCH_RUN ?? '.';
const PAYLOAD = Number(env.BENCH_PAYLOAD ?? 0);
const CHUNK = Number(env.BENCH_CHUNK ?? 1000);
const FLUSH_AFTER = 200;
// What Postgres cannot compress, as real payloads hardly can.
const FILLING = crypto.randomBytes(PAYLOAD).toString('base64');
const SHIFTS = 97;

const now = () => (performance.timeOrigin + performance.now()) / 1000;

const slot = Buffer.alloc(24);
const seconds = Buffer.alloc(8);
let slotFile, latencyFile, count = 0, flushed = 0;

function flush() {
  if (count === flushed) return;
  slot.writeBigUInt64LE(BigInt(count), 0);
  fs.writeSync(slotFile, slot, 0, 24, 0);
  flushed = count;
}

// The first act of every handler; with the time of the enqueue call, its latency, too.
export function mark(enqueuedAt) {
  const started = now();
  if (!count) {
    slotFile = fs.openSync(path.join(RUN, `slot-${process.pid}`), 'w+');
    latencyFile = fs.openSync(path.join(RUN, `latency-${process.pid}`), 'a');
    slot.writeDoubleLE(started, 8);
    setInterval(flush, 5).unref();
  }
  count++;
  slot.writeDoubleLE(started, 16);
  // A write to the file costs more than Python's to its mapped one: every 200 jobs or 5 ms.
  if (count - flushed >= FLUSH_AFTER || count === 1) flush();
  if (!enqueuedAt) return;
  seconds.writeDoubleLE(started - enqueuedAt);
  fs.writeSync(latencyFile, seconds);
}

export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

function payload(number, more = {}) {
  const args = { n: number, ...more };
  const missing = PAYLOAD - JSON.stringify(args).length - ',"pad":""'.length;
  if (missing <= 0) return args;
  const start = Math.abs(number) % SHIFTS % (FILLING.length - missing);
  return { ...args, pad: FILLING.slice(start, start + missing) };
}

const many = (from, size, more) => Array.from({ length: size }, (_, n) => payload(from + n, more));

const report = (jobs, ms) => console.log(JSON.stringify({ jobs, seconds: ms / 1000 }));

const commands = {
  migrate: peer => peer.migrate?.(),
  worker: peer => peer.work(),
  async one(peer, total) {
    await peer.open();
    await peer.add(payload(-1));
    const began = performance.now();
    for (let n = 0; n < total; n++) await peer.add(payload(n));
    report(total, performance.now() - began);
  },
  async bulk(peer, total, task) {
    await peer.open();
    const size = CHUNK || total;
    const ready = [];
    for (let from = 0; from < total; from += size) ready.push(many(from, Math.min(size, total - from)));
    const began = performance.now();
    for (const part of ready) await peer.addMany(task, part);
    report(total, performance.now() - began);
  },
  async latency(peer, total, every, batch) {
    await peer.open();
    const began = performance.now();
    let due = began;
    for (let n = 0; n < total; n += batch) {
      due += every * 1000;
      await sleep(Math.max(0, due - performance.now()));
      const more = { t: now() };
      if (batch === 1) await peer.add(payload(n, more));
      else await peer.addMany('noop', many(n, batch, more));
    }
    report(total, performance.now() - began);
  },
};

export async function main(peer) {
  const [name, ...words] = process.argv.slice(2);
  await commands[name](peer, ...words.map(word => (isNaN(word) ? word : Number(word))));
  if (name !== 'worker') process.exit(0);
}
