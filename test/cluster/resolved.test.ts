// The whole way on a laptop that runs systemd-resolved: the real one, with a message bus of its own, on the second
// laptop. /etc, /run/dbus and resolvectl are changed in a mount namespace of the test's own, which is gone
// with the test's processes.
//
//   program → 127.0.0.53 (resolved) ─┬─ our names ──→ the daemon's DNS server, on the device
//                                    └─ the rest ───→ the router (link settings of eth0, as NetworkManager makes them)
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { busConfig, resolvedUser, unpackResolved } from "#test/netns/unpacked-resolved.ts";
import { laptopAddresses, publicWebAddress } from "#testbed/layout.ts";
import { Lab, apply, fixture, freshNamespaces, prepare, removeNamespaces, rolledOut, until, webApp } from "./lab.ts";
import type { Running } from "./lab.ts";

const unpacked = unpackResolved();
const namespace = "it-resolved";
const { gateway: resolver } = laptopAddresses(2);
const plain = new Lab({ laptop: 2, managerNamespace: "it-manager" });

/** What a laptop with the package has: its user, resolv.conf that leads to the stub, the bus, resolvectl. */
const mounts = `set -e
own=$(mktemp -d /run/resolved-XXXXXX)
for place in /etc /usr/local/sbin; do
  mkdir -p $own$place; cp -a $place/. $own$place; mount --bind $own$place $place
done
cp ${unpacked}/usr/bin/resolvectl /usr/local/sbin/
sed -i '/^systemd-resolve:/d' /etc/passwd /etc/group
echo 'systemd-resolve:x:${resolvedUser}:${resolvedUser}::/:/usr/sbin/nologin' >> /etc/passwd
echo 'systemd-resolve:x:${resolvedUser}:' >> /etc/group
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
mkdir -p /run/dbus /run/systemd $own/dbus $own/systemd/resolve
mount --bind $own/dbus /run/dbus; mount --bind $own/systemd /run/systemd
chmod 755 $own $own/systemd; chown ${resolvedUser}:${resolvedUser} /run/systemd/resolve
cat > $own/bus.conf <<'END'
${busConfig}
END
echo "ready $own"
exec sleep infinity
`;

describe.skipIf(unpacked === undefined)("a laptop with systemd-resolved", () => {
  const running: Running[] = [];
  let lab: Lab;
  let own = "";

  beforeAll(async () => {
    await prepare();
    await plain.quit();
    await freshNamespaces(namespace);
    await apply(namespace, ...webApp({ name: "web" }));
    await rolledOut(namespace, "deployment/web");
    const holder = plain.spawn(["unshare", "--mount", "sh", "-c", mounts], { user: "root" });
    running.push(holder);
    await holder.says("ready", 10_000);
    own = /^ready (\S+)$/m.exec(holder.stdout)?.[1] ?? "";
    lab = new Lab({ ...plain.options, mountsOf: holder.child.pid ?? 0 });
    const start = (...argv: readonly string[]): void => void running.push(lab.spawn(argv, { user: "root" }));
    start("dbus-daemon", "--nofork", `--config-file=${own}/bus.conf`);
    await until("the bus", async () => (await lab.sh("test -S /run/dbus/system_bus_socket")).code === 0);
    start(join(unpacked ?? "", "lib/systemd/systemd-resolved"));
    await until("systemd-resolved", async () => (await lab.sh("resolvectl dns eth0")).code === 0);
    await lab.rootSh(`resolvectl dns eth0 ${resolver}; resolvectl domain eth0 '~.'`);
    await until("a public name", async () => (await lab.sh("getent hosts example.com")).code === 0);
  });
  afterAll(async () => {
    await lab.quit();
    for (const program of running.toReversed()) await program[Symbol.asyncDispose]();
    await plain.rootSh(`rm -rf ${own}; rmdir /run/dbus /run/systemd`);
    await removeNamespaces(namespace);
  });

  /** What resolved is told about its links, and how look-ups find it. */
  const settings = async (): Promise<string> =>
    await lab.rootSh("resolvectl status --no-pager; cat /etc/resolv.conf; ls -l /etc/resolv.conf; nft list ruleset");
  const lookUp = async (name: string): Promise<string> =>
    (await lab.sh(`getent ahostsv4 ${name}`)).stdout.split(" ")[0] ?? "";

  test("goes the whole way, every program finds its names, and quit leaves the links' settings as before", async () => {
    const before = await settings();
    expect(before).toContain(resolver);
    await lab.ok("connect", "-n", namespace);
    expect(await lab.ok("status")).toMatch(/systemd-resolved|resolved/);
    expect((await lab.sh("resolvectl status --no-pager")).stdout).toContain("cluster.local");
    expect(await lab.rootSh("nft list ruleset")).toBe(""); // the redirect is not needed
    for (const name of ["web", `web.${namespace}`, `web.${namespace}.svc.cluster.local`, "hello.default"]) {
      expect({ name, address: await lookUp(name) }).toEqual({ name, address: expect.stringMatching(/^10\.96\./) });
    }
    // whoever they ask: the C library, the stub, the bus
    expect((await lab.sh("curl -sS -m 10 http://web/")).stdout).toContain("Hello from the cluster");
    expect((await lab.sh(`resolvectl query --legend=no web.${namespace}`)).stdout).toContain("10.96.");
    const python = `import urllib.request as u; print(u.urlopen("http://web.${namespace}/").read().decode())`;
    expect((await lab.sh(`python3 -c '${python}'`)).stdout).toContain("Hello from the cluster");
    expect(await lookUp("example.com")).toBe(publicWebAddress);
    expect((await lab.sh("getent hosts nothing.example.com")).code).toBe(2);
    expect((await lab.sh(`getent hosts nothing.${namespace}`)).code).toBe(2);

    await using server = lab.spawn(fixture("laptop-server.mjs", "18800"));
    await server.says("listens on");
    await lab.ok("intercept", "web", "--port", "18800");
    await until(
      "the laptop's answer",
      async () => (await lab.sh("curl -sS -m 10 http://web/")).stdout === "hello from laptop\n",
    );
    await lab.ok("leave", "web");
    await lab.ok("uninstall", "--agent", "web");
    await lab.quit();
    expect(await settings()).toBe(before);
    expect(await lookUp(`web.${namespace}`)).toBe("");
    expect(await lookUp("example.com")).toBe(publicWebAddress);
  });
  test("resolves a namespace that is made while connected", async () => {
    await lab.ok("connect", "-n", namespace);
    await freshNamespaces("it-resolved-later");
    try {
      await apply("it-resolved-later", ...webApp({ name: "late" }).slice(1));
      await until("late.it-resolved-later", async () => (await lookUp("late.it-resolved-later")).startsWith("10.96."));
    } finally {
      await removeNamespaces("it-resolved-later");
      await lab.quit();
    }
  });
  test("is as before when daemon and helper are killed", async () => {
    const before = await settings();
    await lab.ok("connect", "-n", namespace);
    expect(await settings()).not.toBe(before);
    for (const pid of [...lab.pids("daemon"), ...lab.pids("helper")]) process.kill(pid, "SIGKILL");
    await until("the settings of before", async () => (await settings()) === before, { limitMs: 10_000 });
    expect(await lookUp("example.com")).toBe(publicWebAddress);
  });
});
