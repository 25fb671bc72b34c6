import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { sendFiles } from "./send-files.ts";

const root = mkdtempSync(join(tmpdir(), "send-"));
afterAll(() => rmSync(root, { recursive: true }));

async function archive(folder: string, name: string): Promise<{ bytes: Buffer; unreadable: readonly string[] }> {
  const parts: Buffer[] = [];
  const unreadable = await sendFiles(folder, name, async (bytes) => void parts.push(bytes));
  return { bytes: Buffer.concat(parts), unreadable };
}

describe("sendFiles()", () => {
  test("sends a folder as tar reads it, and names what it cannot send", async () => {
    const data = join(root, "data");
    mkdirSync(join(data, "sub"), { recursive: true });
    writeFileSync(join(data, "sub/big"), "x".repeat(200_000));
    writeFileSync(join(data, "run"), "hi");
    chmodSync(join(data, "run"), 0o755);
    symlinkSync("sub/big", join(data, "link"));
    await using socket = createServer().listen(join(data, "pipe"));
    await once(socket, "listening");
    const { bytes, unreadable } = await archive(root, "data");
    expect(unreadable).toEqual(["data/pipe"]);
    const out = join(root, "out");
    mkdirSync(out);
    execFileSync("tar", ["-xf", "-", "-C", out], { input: bytes });
    expect(readFileSync(join(out, "data/sub/big"), "utf8")).toBe("x".repeat(200_000));
    expect(readlinkSync(join(out, "data/link"))).toBe("sub/big");
  });
  test("sends what a folder holds, and a lone file", async () => {
    const { bytes } = await archive(join(root, "data"), ".");
    expect(execFileSync("tar", ["-tf", "-"], { input: bytes }).toString().split("\n").toSorted()).toEqual(
      ["", ".", "./link", "./run", "./sub", "./sub/big"].toSorted(),
    );
    const lone = await archive(join(root, "data"), "run");
    expect(execFileSync("tar", ["-xOf", "-"], { input: lone.bytes }).toString()).toBe("hi");
  });
  test("fails where there is nothing of that name", async () => {
    await expect(archive(root, "nothing")).rejects.toThrow("ENOENT");
  });
});
