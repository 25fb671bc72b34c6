// visitor: calls a service again and again and keeps count of who answered, so that everybody can watch an intercept
// from the callers' side. GET / says it in words, GET /stats as JSON, POST /reset starts the count anew.
// Every second call is made on a connection of its own, the others on kept ones.
import { Agent, createServer, get } from "node:http";

const target = process.env["TARGET"] ?? "http://hello/";
const perSecond = Number(process.env["PER_SECOND"] ?? "10");
const port = Number(process.env["PORT"] ?? "8080");
const timeoutMs = Number(process.env["TIMEOUT_MS"] ?? "5000");
const drainMs = Number(process.env["DRAIN_SECONDS"] ?? "2") * 1000;
const keptErrors = 20;

const kept = new Agent({ keepAlive: true, maxSockets: 4 });
let stats = empty();
let calls = 0;
/** Failures count of calls that are made after the first answer: at start the target may not be there yet. */
let begun = false;

function empty() {
  return { total: 0, failed: 0, answeredBy: {}, lastAnswerBy: "", lastBody: "", errors: [] };
}

function call() {
  calls += 1;
  const agent = calls % 2 === 0 ? kept : false;
  const counts = begun;
  const failed = (error) => {
    if (!counts) return;
    stats.total += 1;
    noteFailure(error.message);
  };
  const request = get(target, { agent, timeout: timeoutMs }, (response) => {
    let body = "";
    response.setEncoding("utf8");
    response.on("data", (chunk) => (body += chunk));
    response.on("error", failed);
    response.on("end", () => {
      begun = true;
      // the pod's name where the sample answers, the server's name where a laptop does
      const who = response.headers["x-pod"] ?? response.headers["server"] ?? "somebody else";
      stats.total += 1;
      stats.answeredBy[who] = (stats.answeredBy[who] ?? 0) + 1;
      stats.lastAnswerBy = who;
      stats.lastBody = body.slice(0, 500);
      if ((response.statusCode ?? 500) >= 500) noteFailure(`status ${response.statusCode}`);
    });
  });
  request.on("timeout", () => request.destroy(new Error(`no answer within ${timeoutMs} ms`)));
  request.on("error", failed);
}

function noteFailure(message) {
  stats.failed += 1;
  stats.errors = [...stats.errors, { at: new Date().toISOString(), message }].slice(-keptErrors);
}

const timer = setInterval(call, 1000 / perSecond);

const server = createServer((request, response) => {
  if (request.url === "/reset" && request.method === "POST") stats = empty();
  if (request.url === "/stats" || request.url === "/reset") {
    response.setHeader("content-type", "application/json");
    response.end(`${JSON.stringify(stats)}\n`);
    return;
  }
  const answers = Object.entries(stats.answeredBy).map(([who, count]) => `  ${count} from ${who}`);
  response.end(
    [`${stats.total} calls of ${target}, ${stats.failed} failed`, ...answers, `last: ${stats.lastAnswerBy}`, ""].join(
      "\n",
    ),
  );
});
server.listen(port);

process.once("SIGTERM", () => {
  clearInterval(timer);
  setTimeout(() => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  }, drainMs);
});
