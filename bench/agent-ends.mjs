// One process of the agent's benchmark: the application, a bare node:http proxy in front of it, or the agent. Tells its
// parent its port, and on each message how much processor time it has used.
import { Agent as HttpAgent, createServer, request } from "node:http";
import { connect } from "node:net";

const [, , what, appPort] = process.argv;
const body = Buffer.alloc(100, "x");

async function start() {
  if (what === "agent") {
    const { startAgent } = await import("#agent/agent.ts");
    const { systemClock } = await import("#base/clock.ts");
    const { silentLogger } = await import("#base/log.ts");
    const port = { agentPort: 0, containerPort: Number(appPort), containerName: "app", protocol: "tcp" };
    const workload = { kind: "Deployment", name: "bench", namespace: "bench" };
    const settings = {
      config: { workload, containerName: "app", ports: [{ ...port, takeover: "name", http: true }] },
      podName: "bench",
      podUid: "bench",
      podIps: ["127.0.0.1"],
      logLevel: "silent",
      drainMs: 1000,
      ports: { introduction: 0, health: 0 },
    };
    const agent = await startAgent({ settings, clock: systemClock, log: silentLogger });
    return agent.agentPorts[0];
  }
  const server = createServer(what === "proxy" ? proxied() : (incoming, outgoing) => outgoing.end(body));
  if (what === "pipe") {
    server.removeAllListeners("connection");
    server.on("connection", (socket) => {
      const far = connect({ port: Number(appPort), host: "127.0.0.1", noDelay: true });
      socket.pipe(far).pipe(socket);
      socket.on("error", () => far.destroy());
      far.on("error", () => socket.destroy());
    });
  }
  server.keepAliveTimeout = 60_000;
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return server.address().port;
}

/** The shortest proxy that Node's own modules make. */
function proxied() {
  const agent = new HttpAgent({ keepAlive: true, maxSockets: Infinity });
  return (incoming, outgoing) => {
    const { method, url: path, headers } = incoming;
    const onward = request({ host: "127.0.0.1", port: Number(appPort), agent, method, path, headers });
    onward.on("response", (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  };
}

const port = await start();
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send({ cpuMs: (user + system) / 1000, heapBytes: process.memoryUsage().rss });
});
process.send({ port });
