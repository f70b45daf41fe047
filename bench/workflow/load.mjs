// Closed loop: C starts in flight, N in all, each run awaited to its end in the same request. Prints one line of JSON.
//   BASE=http://127.0.0.1:PORT/workflows/v1 FLOW=bench/three N=2000 C=128 node load.mjs
import http from "node:http";
const { BASE, FLOW = "bench/three", WANT = '"acc":6' } = process.env;
const [N, C, WARM] = [+(process.env.N ?? 2000), +(process.env.C ?? 128), +(process.env.WARM ?? 200)];
const base = new URL(BASE);
const agent = new http.Agent({ keepAlive: true, maxSockets: C });
const batchName = process.hrtime.bigint().toString(36);
const one = (number) => new Promise((done, failed) => {
  const request = http.request({
    host: base.hostname, port: base.port, path: `${base.pathname}/workflows/${FLOW}/runs?wait=60s`, method: "POST", agent,
    headers: { "content-type": "application/json", "content-length": 7, "idempotency-key": `${batchName}-${number}` },
  }, (answer) => {
    let text = "";
    answer.setEncoding("utf8").on("data", (part) => (text += part)).on("end", () =>
      answer.statusCode === 200 && text.includes(WANT) ? done() : failed(new Error(`${answer.statusCode} ${text}`)));
  });
  request.on("error", failed).end('{"n":1}');
});
const batch = async (from, count, times) => {
  let next = from;
  await Promise.all(Array.from({ length: C }, async () => {
    for (let number = next++; number < from + count; number = next++) {
      const begun = performance.now();
      await one(number);
      times?.push(performance.now() - begun);
    }
  }));
};
await batch(0, WARM);
const times = [], begun = performance.now();
await batch(WARM, N, times);
const seconds = (performance.now() - begun) / 1000;
times.sort((a, b) => a - b);
const at = (part) => +times[Math.min(times.length - 1, Math.floor(part * times.length))].toFixed(2);
console.log(JSON.stringify({ peer: "standfast", n: N, c: C, seconds: +seconds.toFixed(2), workflows_per_s: +(N / seconds).toFixed(1),
  p50_ms: at(0.5), p90_ms: at(0.9), p99_ms: at(0.99), max_ms: at(1) }));
agent.destroy();
