// One process that does the steps: adds one to a number.
import http from "node:http";
http.createServer((request, response) => {
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    const value = request.url === "/healthz" ? "ok" : JSON.parse(body).step + 1;
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ value }));
  });
}).listen(Number(process.env.PORT), process.env.HOST ?? "127.0.0.1");
