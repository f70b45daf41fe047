// Does 8 requests at a time, each in 20 ms, which makes 400 a second; the others wait in line. Tells at /count what it has done.
import http from "node:http";
const [PLACES, MS] = [8, 20];
const line = [], keys = new Set();
let busy = 0, calls = 0, last = 0;
const next = () => {
  while (busy < PLACES && line.length > 0) {
    const answer = line.shift();
    if (answer.destroyed) continue;
    busy += 1;
    setTimeout(() => { busy -= 1; answer(); next(); }, MS);
  }
};
http.createServer((request, response) => {
  if (request.url === "/healthz") return response.end("ok");
  if (request.url === "/count") return response.end(JSON.stringify({ calls, keys: keys.size, last }));
  let text = "";
  request.on("data", (part) => (text += part)).on("end", () => {
    const { step } = JSON.parse(text);
    calls += 1;
    keys.add(request.headers["idempotency-key"]);
    line.push(() => {
      if (step === 2) last += 1;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ value: step + 1 }));
    });
    next();
  });
}).listen(+process.env.PORT, process.env.HOST ?? "127.0.0.1");
