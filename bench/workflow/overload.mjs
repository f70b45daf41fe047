// 1. How many workflows of three calls end in a second with 64 in flight: the capacity. 2. How long an urgent one takes alone.
// 3. For LASTS seconds three times as many are started as can be done, and 5 urgent ones a second. 4. How long until all that was let in is done.
//   BASE=http://127.0.0.1:PORT/workflows/v1 STEPS=http://127.0.0.1:PORT LASTS=60 node overload.mjs
import http from "node:http";
const { BASE, STEPS } = process.env, SECONDS = +(process.env.LASTS ?? 60);
const agent = new http.Agent({ keepAlive: true, maxSockets: 512 });
const ask = (url, method = "GET", headers = {}, body) => new Promise((done, failed) => {
  const request = http.request(url, { method, agent, headers }, (answer) => {
    let text = "";
    answer.setEncoding("utf8").on("data", (part) => (text += part)).on("end", () => done({ status: answer.statusCode, headers: answer.headers, text }));
  });
  request.on("error", failed).end(body);
});
const name = process.hrtime.bigint().toString(36);
let number = 0;
const start = (flow, wait = "") => ask(`${BASE}/workflows/bench/${flow}/runs${wait}`, "POST",
  { "content-type": "application/json", "idempotency-key": `${name}-${number++}` }, "{}");
const count = async () => JSON.parse((await ask(`${STEPS}/count`)).text);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const at = (times, part) => { times.sort((a, b) => a - b); return Math.round(times[Math.min(times.length - 1, Math.floor(part * times.length))]); };

let going = true, closed = 0;
const clients = Array.from({ length: 64 }, async () => {
  while (going) { const ended = await start("normal", "?wait=60s"); if (ended.status !== 200) throw new Error(ended.text); closed += 1; }
});
await sleep(3_000);
const [from, begun] = [closed, performance.now()];
await sleep(15_000);
const capacity = (closed - from) / ((performance.now() - begun) / 1000);
going = false;
await Promise.all(clients);

const urgent = async (times) => {
  const asked = performance.now(), ended = await start("urgent", "?wait=60s");
  times.push(ended.status === 200 ? performance.now() - asked : 60_000);
  if (ended.status !== 200) console.error("urgent:", ended.status, ended.text);
};
const alone = [];
for (let i = 0; i < 50; i += 1) await urgent(alone);

const before = await count(), busy = [], running = [], refused = [], again = [];
let accepted = 0, sent = 0, urgents = 0;
const [zero, rate] = [performance.now(), capacity * 3];
while (performance.now() - zero < SECONDS * 1000) {
  const passed = (performance.now() - zero) / 1000;
  while (sent < passed * rate) {
    sent += 1;
    running.push(start("normal").then((answer) => {
      if (answer.status === 202) accepted += 1;
      else { refused.push(answer.status); again.push(+answer.headers["retry-after"]); }
    }));
  }
  while (urgents < passed * 5) { urgents += 1; running.push(urgent(busy)); }
  await sleep(5);
}
const during = await count(), overloaded = (performance.now() - zero) / 1000;
await Promise.all(running);
const drain = performance.now();
for (let now = await count(); now.last - before.last < accepted + urgents; now = await count()) {
  if (performance.now() - drain > 300_000) throw new Error(`only ${now.last - before.last} of ${accepted + urgents} were done`);
  await sleep(200);
}
const after = await count();
const faulted = JSON.parse((await ask(`${BASE}/runs?status=faulted&limit=1000`)).text).runs.length;
console.log(JSON.stringify({
  capacity_per_s: +capacity.toFixed(1), started_per_s: +(sent / overloaded).toFixed(1), goodput: +((during.last - before.last) / overloaded / capacity).toFixed(3),
  accepted, refused: refused.length, refused_by: [...new Set(refused)], retry_after_s: again.length ? [Math.min(...again), Math.max(...again)] : [],
  urgent_alone_ms: { p50: at(alone, 0.5), p99: at(alone, 0.99) }, urgent_ms: { p50: at(busy, 0.5), p99: at(busy, 0.99), n: busy.length },
  drained_s: +((performance.now() - drain) / 1000).toFixed(1), faulted, extra_calls: +((after.calls - before.calls) / (after.keys - before.keys) - 1).toFixed(4),
}));
agent.destroy();
