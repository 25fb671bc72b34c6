// What the kernel says to an ordinary user when the laptop's network changes, in a network namespace of its own.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, test } from "vitest";

const namespace = `tp-news-${process.pid}`;
const nobody = "65534";

function run(command: string): void {
  const [file = "", ...args] = command.replace("ip ", `ip -n ${namespace} `).split(" ");
  execFileSync(file, args);
}

/** Changes of a laptop's network in their order, and which of them are news. */
const changes: readonly [what: string, change: string, isNews: boolean][] = [
  ["a device of ours comes", "ip tuntap add dev own0 mode tun", false],
  ["our device is made ready", "ip addr add 246.246.0.1/29 dev own0", false],
  ["our device is up", "ip link set own0 up", false],
  ["a route leads into the cluster", "ip route add 10.0.0.0/8 dev own0", false],
  ["our device goes, and its routes", "ip link del own0", false],
  ["what is known is said again", "ip link set wlan0 alias again", false],
  ["an address comes", "ip addr add 198.51.100.9/24 dev wlan0", true],
  ["an address is renewed", "ip addr change 198.51.100.9/24 dev wlan0 valid_lft 99 preferred_lft 99", false],
  ["a route comes", "ip route add default via 198.51.100.1", true],
  ["an address goes", "ip addr del 198.51.100.9/24 dev wlan0", true],
  ["the cable is pulled", "ip link set wlan1 down", true],
];

test("an ordinary user hears of each change of links, addresses and routes, but not of our own devices'", async () => {
  execFileSync("ip", ["netns", "add", namespace]);
  const enter = ["netns", "exec", namespace];
  execFileSync("ip", [...enter, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
  run("ip link add wlan0 type veth peer name wlan1");
  for (const device of ["lo", "wlan0", "wlan1"]) run(`ip link set ${device} up`);
  const fixture = join(import.meta.dirname, "fixtures/network-news.ts");
  const user = ["setpriv", `--reuid=${nobody}`, "--clear-groups", "--bounding-set=-all"];
  const child = spawn("ip", [...enter, ...user, process.execPath, fixture]);
  try {
    let said = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (said += String(chunk)));
    child.stderr.on("data", (chunk: Buffer) => (errors += String(chunk)));
    const lines = (): number => said.split("\n").length;
    /** Something that is news by itself; how many there have been before it. */
    const marked = async (): Promise<number> => {
      for (const command of ["ip route add 192.0.2.0/24 dev lo", "ip route del 192.0.2.0/24 dev lo"]) {
        const before = lines();
        run(command);
        await expect.poll(lines, { interval: 5 }).toBeGreaterThan(before);
      }
      return lines() - 2;
    };
    await expect.poll(() => `${said}${errors}`, { timeout: 10_000 }).toContain("listening");
    for (const [what, change, isNews] of changes) {
      const before = lines();
      run(change);
      if (isNews) await expect.poll(lines, { message: what, interval: 5 }).toBeGreaterThan(before);
      else expect([what, await marked()]).toEqual([what, before]);
      await marked();
    }
    child.stdin.end();
    const [code] = (await once(child, "exit")) as [number];
    expect([code, errors]).toEqual([0, ""]);
  } finally {
    child.kill();
    execFileSync("ip", ["netns", "del", namespace]);
  }
});
