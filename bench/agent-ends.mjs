// One process of the agent's benchmark: the application, the shortest proxy that Node's own modules make in front of it,
// a mere pipe, or an agent whose record of decisions can be switched off. `app2` and `proxy2` speak HTTP/2. Tells its
// parent its port.
import { Agent as HttpAgent, createServer, request } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { connect } from "node:net";

const [, , what, appPort] = process.argv;
const body = Buffer.alloc(100, "x");
const maxStreams = { settings: { maxConcurrentStreams: 1000 } };

const servers = {
  app: () => createServer((incoming, outgoing) => outgoing.end(body)),
  app2: () => createHttp2Server(maxStreams, (incoming, outgoing) => outgoing.end(body)),
  proxy: () => createServer(proxied()),
  proxy2: () => createHttp2Server(maxStreams).on("stream", proxied2()),
  pipe: () => createServer().removeAllListeners("connection").on("connection", piped),
};

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

/** A connection onward for each connection, as the agent has it. */
function proxied2() {
  const onwards = new Map();
  return (stream, headers) => {
    const { session } = stream;
    let onward = onwards.get(session);
    if (onward === undefined) {
      onward = connectHttp2(`http://127.0.0.1:${appPort}`);
      onwards.set(session, onward);
      onward.on("error", () => session.destroy());
      session.once("close", () => onward.close());
    }
    const request = onward.request(headers, { endStream: stream.endAfterHeaders });
    request.on("response", (answer) => {
      stream.respond(answer);
      request.pipe(stream);
    });
    request.on("error", () => stream.destroy());
    stream.on("error", () => request.destroy());
    if (!stream.endAfterHeaders) stream.pipe(request);
  };
}

function piped(socket) {
  const far = connect({ port: Number(appPort), host: "127.0.0.1", noDelay: true });
  socket.pipe(far).pipe(socket);
  socket.on("error", () => far.destroy());
  far.on("error", () => socket.destroy());
}

/** The whole agent from its source. */
async function startAgent() {
  const { testAgent } = await import("#test/flow/manager/harness.ts");
  const { Decisions } = await import("#agent/decisions.ts");
  const { add } = Decisions.prototype;
  const ignore = () => undefined;
  const inert = { copiedTo: ignore, leftToApplication: ignore, answered: ignore, answeredByAgent: ignore, cut: ignore };
  process.on("message", ({ record }) => {
    Decisions.prototype.add = record ? add : () => inert;
    const { user, system } = process.cpuUsage();
    process.send({ usedMicroseconds: user + system });
  });
  const { agentPorts, introductionPort } = await testAgent({ containerPort: Number(appPort), http: true });
  return { port: agentPorts[0], introductionPort };
}

async function startServer() {
  const server = servers[what]();
  server.keepAliveTimeout = 60_000;
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return { port: server.address().port };
}

process.send(await (what === "agent" ? startAgent() : startServer()));
