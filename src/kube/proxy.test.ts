// Ways out of a company's network. Stories of the original: `proxy-url` was used for requests and not for the
// port-forward; an API server whose certificate names its address only could not be reached.
import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { FakeApiServer, sendJson } from "./api-server.fake.ts";
import { certificatePem } from "./certificate.fake.ts";
import type { Kube } from "./client.ts";
import { planTarget } from "./config.ts";
import { ConnectProxy } from "./connect-proxy.fake.ts";
import { execInPod } from "#kube/streams/exec.ts";
import { mergeConfigs } from "./kubeconfig.ts";
import { pods } from "./objects.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";
import { parseProxy } from "./proxy.ts";

const { signal } = new AbortController();

/** A request, a port-forward and a command in a pod: each opens a connection of its own. */
async function useEachWay(kube: Kube): Promise<void> {
  expect((await kube.get(pods, { name: "x" }, signal)).metadata.name).toBe("x");
  (await openPortForward(kube, { namespace: "n", pod: "p", port: 1, signal })).on("error", () => undefined).destroy();
  const { stdout } = await execInPod(kube, { namespace: "n", pod: "p", container: "c", command: ["true"], signal });
  expect(stdout.toString()).toBe("done");
}

async function apiServer(secure = false): Promise<FakeApiServer> {
  const server = await new FakeApiServer({ secure }).listen();
  server.answer = (_request, response) => sendJson(response, { metadata: { name: "x" } });
  server.onUpgrade = (socket, { url }) => {
    if (url?.includes("/exec?") !== true) return;
    socket.send(Buffer.from("\u0001done"));
    socket.send(Buffer.from('\u0003{"status":"Success"}'));
    socket.close(1000);
  };
  return server;
}

const authority = { pem: certificatePem };
const times = (count: number, what: string): string[] => Array<string>(count).fill(what);

describe("the API server by its address", () => {
  test("is taken by a certificate that names the address and nothing else", async () => {
    await using server = await apiServer(true);
    await useEachWay(server.open({ ca: authority }));
  });
  test("is not taken without the authority that signed", async () => {
    await using server = await apiServer(true);
    await expect(server.open().get(pods, { name: "x" }, signal)).rejects.toThrow("self-signed certificate");
  });
});

describe("a proxy", () => {
  test.each([
    ["http, asks nothing", {}, ""],
    ["http, with a password", { login: "user:p@ss" }, "user:p%40ss"],
    ["https", { tls: true }, ""],
    ["https, with a password", { tls: true, login: "user:p@ss" }, "user:p%40ss"],
  ])("of kind %s leads requests, port-forwards and exec to an https server", async (_what, options, login) => {
    await using server = await apiServer(true);
    await using proxy = await new ConnectProxy(options).listen();
    await useEachWay(server.open({ ca: authority, proxyUrl: proxy.url(login) }));
    expect(proxy.asked.length).toBeGreaterThan(0);
    expect(server.connections).toBe(proxy.asked.length);
    expect(proxy.asked).toEqual(times(proxy.asked.length, `127.0.0.1:${server.port}`));
  });
  test("of kind socks5 does so too, with user and password", async () => {
    await using server = await apiServer();
    const steps: string[] = [];
    await using proxy = await listen(socksProxy(steps));
    await useEachWay(server.open({ proxyUrl: `socks5://me:pw@127.0.0.1:${proxy.port}` }));
    expect(steps.slice(0, 3)).toEqual(["05020002", "me\u0002pw", "127.0.0.1"]);
    expect(server.connections).toBe(steps.length / 3);
  });
  test("of the environment is taken like one of the kubeconfig, which wins over it", async () => {
    const merged = (proxyUrl: string): ReturnType<typeof mergeConfigs> =>
      mergeConfigs([
        {
          path: "/k",
          text: JSON.stringify({
            "current-context": "c",
            contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
            clusters: [{ name: "c", cluster: { server: "https://api.example", "proxy-url": proxyUrl } }],
            users: [{ name: "u", user: {} }],
          }),
        },
      ]);
    const env = { HTTPS_PROXY: "http://env:3128" };
    const proxyOf = (proxyUrl: string): string | undefined =>
      planTarget(merged(proxyUrl), { flags: {}, cwd: "/", env }, []).proxyUrl;
    expect([proxyOf(""), proxyOf("socks5://own:1080")]).toEqual(["http://env:3128", "socks5://own:1080"]);
  });
});

describe("a wrong proxy is named in one sentence", () => {
  async function sentence(proxyUrl: string, clock?: FakeClock): Promise<string> {
    await using server = await apiServer();
    const kube = server.open({ proxyUrl }, clock === undefined ? {} : { clock });
    const failed = openPortForward(kube, { namespace: "n", pod: "p", port: 1, signal }).catch(
      (error: unknown) => error,
    );
    for (let step = 0; clock !== undefined && step < 5; step++) {
      await new Promise((resolve) => setImmediate(resolve));
      await clock.advance(4000);
    }
    const error = (await failed) as Error & { readonly hint?: string };
    expect(error.hint).toMatch(/proxy-url.*HTTPS_PROXY/);
    return error.message.replaceAll(String(server.port), "SERVER");
  }

  test("that nobody listens for", async () => {
    const closed = await new ConnectProxy().listen();
    const { port } = closed;
    await closed[Symbol.asyncDispose]();
    expect(await sentence(`http://me:secret@127.0.0.1:${port}`)).toBe(
      `proxy http://127.0.0.1:${port} cannot be reached: connection refused`,
    );
  });
  test("that wants a password, or another one", async () => {
    await using proxy = await new ConnectProxy({ login: "user:right" }).listen();
    const wants = `proxy ${proxy.url()} does not lead to 127.0.0.1:SERVER: it`;
    expect(await sentence(proxy.url())).toBe(`${wants} wants a user name and password (407)`);
    expect(await sentence(proxy.url("user:wrong"))).toBe(`${wants} refused the user name and password (407)`);
  });
  test("that speaks something else, or nothing", async () => {
    await using other = await listen(createServer((socket) => socket.end("220 mail ready\r\n\r\n")));
    expect(await sentence(`http://127.0.0.1:${other.port}`)).toMatch(/does not lead to .*: it answered no HTTP$/);
    await using silent = await listen(createServer(() => undefined));
    expect(await sentence(`http://127.0.0.1:${silent.port}`, new FakeClock())).toMatch(
      new RegExp(`^connecting to cluster .* through proxy http://127.0.0.1:${silent.port} took longer than`),
    );
  });
  test("that is no URL", async () => {
    expect(await sentence("ftp://p")).toBe("the proxy for the cluster has scheme ftp, expected http, https or socks5");
    for (const wrong of ["http://ann:s%zzcret@p", "http://ann:s3cret@p:port"]) {
      expect(await sentence(wrong)).toBe("the proxy for the cluster is not given as a URL");
      try {
        parseProxy(wrong);
      } catch (error) {
        expect(inspect(error)).not.toContain("cret"); // its causes are in logs
      }
    }
  });
});

function socksProxy(steps: string[]): Server {
  return createServer((client) => {
    client.on("error", () => undefined);
    client.once("data", (hello: Buffer) => {
      steps.push(hello.toString("hex"));
      client.write(Buffer.from([5, 2]));
      client.once("data", (login: Buffer) => {
        steps.push(login.subarray(2).toString("latin1"));
        client.write(Buffer.from([1, 0]));
        client.once("data", (request: Buffer) => {
          steps.push(request.subarray(5, -2).toString());
          const upstream = connect(request.readUInt16BE(request.length - 2), "127.0.0.1", () => {
            client.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
            client.pipe(upstream).pipe(client);
          });
          upstream.on("error", () => client.destroy());
        });
      });
    });
  });
}

async function listen(server: Server): Promise<AsyncDisposable & { readonly port: number }> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
