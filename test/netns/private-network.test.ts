// A program in a network of its own, made by the real program in real namespaces; the daemon's side is in this process,
// and "the cluster" and all else are servers of this machine that stand for the addresses.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import dnsPacket from "dns-packet";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { PrivateNetworks, type PrivateNetwork } from "#daemon/private-networks/door.ts";
import { Reach } from "#daemon/proxy/reach.ts";
import { unshareCommand } from "#host/private-network.ts";

const helperMain = join(import.meta.dirname, "..", "..", "src", "helper", "main.ts");
const signal = new AbortController().signal;
let directory: string;
let networks: PrivateNetworks;
let entered: PrivateNetwork;
let stack: AsyncDisposableStack;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  directory = mkdtempSync(join(tmpdir(), "tp-private-"));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "networks.sock");
  networks = stack.use(await PrivateNetworks.open({ path, clock: systemClock, log: silentLogger }));
  entered = networks.expect(await makeWays());
});
afterEach(async () => await stack.disposeAsync());

/** Every address is this machine's echo; names resolve to one that nobody has. */
async function makeWays(): Promise<Parameters<PrivateNetworks["expect"]>[0]> {
  const echo = createServer({ allowHalfOpen: true }, (socket) => void socket.on("error", () => undefined).pipe(socket));
  echo.listen(0, "127.0.0.1");
  await once(echo, "listening");
  stack.defer(() => void echo.close());
  const { port } = echo.address() as AddressInfo;
  const dns = createSocket("udp4");
  stack.defer(() => void dns.close());
  dns.bind(0, "127.0.0.1");
  await once(dns, "listening");
  dns.on("message", (message, from) => {
    const { id = 0, questions = [] } = dnsPacket.decode(message);
    const [question] = questions;
    const name = question?.name ?? "";
    const isOurs = name === "hello.team" && question?.type === "A";
    const answers = isOurs ? [{ type: "A" as const, name, ttl: 1, data: "10.96.0.7" }] : [];
    const reply = { type: "response" as const, id, questions, answers };
    dns.send(dnsPacket.encode({ ...reply, flags: name === "hello.team" ? 0 : 3 }), from.port, from.address);
  });
  const real = new Reach({
    open: () => Promise.reject(new Error("there is no session here")),
    isCluster: () => false,
    resolve: () => Promise.resolve(undefined),
    clock: systemClock,
  });
  const reach: Pick<Reach, "tcp" | "udp"> = {
    tcp: (target, given) =>
      real.tcp(target.port === 81 ? { host: "127.0.0.1", port: 1 } : { host: "127.0.0.1", port }, given),
    udp: (target, given) => real.udp(target, given),
  };
  return { reach, dns: { address: "127.0.0.1", port: dns.address().port } };
}

interface Ended {
  readonly code: number | string | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...command: string[]): Promise<Ended> {
  const maker = [process.execPath, helperMain, "enter", networks.path, String(entered.id)];
  return execute(unshareCommand([...maker, "--", ...command]));
}

function execute([file = "", ...args]: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(file, args, { timeout: 20_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : (error.code ?? error.signal ?? undefined), stdout, stderr });
    });
    child.stdin?.end();
  });
}

const talk = `
  import { connect } from "node:net";
  const [, host, port] = process.argv;
  const socket = connect({ host, port: Number(port), allowHalfOpen: true }, () => socket.end("over " + port));
  socket.on("data", (bytes) => process.stdout.write(bytes)).on("error", ({ code }) => console.log(code));
`;

test("names, connections, datagrams and refusals reach the program as from anywhere", async () => {
  const node = [process.execPath, "--input-type=module", "-e", talk];
  const { code, stdout, stderr } = await run(
    "sh",
    "-c",
    'for port in 80 81; do "$@" $port; done',
    "sh",
    ...node,
    "hello.team",
  );
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: "over 80ECONNREFUSED\n", stderr: "" });
});

test("the program is the user's own: no privilege, no ignored signals, its exit code, nothing left open", async () => {
  const show =
    "grep -E 'SigIgn|CapAmb' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; cat /etc/resolv.conf; exit 9";
  const before = readFileSync("/etc/resolv.conf", "utf8");
  const { code, stdout } = await run("sh", "-c", show);
  expect(code).toBe(9);
  expect(stdout).toMatch(/SigIgn:\s+0+\n/);
  expect(stdout).toMatch(/CapAmb:\s+0+\n/);
  const open = "ls /proc/self/fd | tr '\\n' ' '";
  const usual = await execute(["sh", "-c", open]); // what these tests were started with is there, too
  expect(stdout).toContain(`\n${usual.stdout}nameserver 246.246.0.4\n`);
  expect(readFileSync("/etc/resolv.conf", "utf8")).toBe(before);
});

test("the network ends with whoever asked for it, while the program runs", async () => {
  const node = [process.execPath, "--input-type=module", "-e", talk];
  const file = join(directory, "go");
  const line = `until [ -e ${file} ]; do sleep 0.05; done; "$@"`;
  const ended = run("sh", "-c", `touch ${file}.up; ${line}`, "sh", ...node, "10.0.0.1", "80");
  while (!existsSync(`${file}.up`)) await systemClock.sleep(20, signal);
  await entered.end();
  writeFileSync(file, "");
  expect((await ended).stdout).toMatch(/ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ENETDOWN/);
  expect(networks.count).toBe(0);
});

test("a network that nobody waits for, and one by hand, are refused in a sentence", async () => {
  await entered.end();
  const { code, stderr } = await run("true");
  expect({ code, stderr }).toEqual({ code: 1, stderr: "telepresence: error: nobody waits for network 1\n" });
  // As root it would change the laptop itself.
  const byHand = await execute([process.execPath, helperMain, "enter", networks.path, "1", "--", "true"]);
  expect(byHand).toMatchObject({ code: 1, stderr: expect.stringContaining("in no user namespace of its own") });
});
