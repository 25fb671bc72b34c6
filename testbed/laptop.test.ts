import { describe, expect, test } from "vitest";
import { laptopNamespace, namespaceFile } from "./layout.ts";
import { isReachable, laptopSpawnSpec, sudoRule } from "./laptop.ts";

const anchor = { init: { pid: 7, startTicks: 1 } };

describe("laptopSpawnSpec()", () => {
  test("runs the program as the ordinary user in the laptop's network and mounts", () => {
    const { file, args } = laptopSpawnSpec(anchor, ["curl", "hello"], { env: { A: "1", KUBECONFIG: undefined } });
    expect(file).toBe("nsenter");
    expect(args.slice(0, 2)).toEqual([`--net=${namespaceFile(laptopNamespace(1))}`, "--mount=/proc/7/ns/mnt"]);
    expect(args).toContain("setpriv");
    expect(args).toContain("A=1");
    expect(args.some((arg) => arg.startsWith("KUBECONFIG="))).toBe(false);
    expect(args.slice(-2)).toEqual(["curl", "hello"]);
  });
  test("keeps root when asked, and gives a bare environment when asked", () => {
    const { args } = laptopSpawnSpec(anchor, ["true"], { user: "root", environment: "bare", laptop: 2 });
    expect(args).not.toContain("setpriv");
    expect(args[0]).toBe(`--net=${namespaceFile(laptopNamespace(2))}`);
    expect(args.slice(args.indexOf("-i") + 1).map((arg) => arg.split("=")[0])).toEqual(["PATH", "true"]);
  });
});

test("sudoRule() names the helper of that one program, with sudo's own signs escaped", () => {
  expect(sudoRule("/work/my checkout:1/telepresence")).toBe(
    "dev ALL=(root) NOPASSWD: /work/my\\ checkout\\:1/telepresence helper, /work/my\\ checkout\\:1/telepresence helper *\n",
  );
});

test("isReachable() is false when one folder on the way is closed to others", () => {
  const modes: Record<string, number> = {
    "/": 0o755,
    "/root": 0o700,
    "/srv": 0o711,
    "/srv/x": 0o755,
    "/root/x": 0o755,
  };
  const modeOf = (path: string): number => modes[path] ?? 0;
  expect(isReachable("/srv/x", modeOf)).toBe(true);
  expect(isReachable("/root/x", modeOf)).toBe(false);
  expect(isReachable("/srv", modeOf)).toBe(false);
});
