import { describe, expect, test } from "vitest";
import { Interrupts } from "./interrupts.ts";
import { systemClock } from "#base/clock.ts";
import { runCli } from "./run.ts";

/** What `telepresence …` prints when there is no machine to touch. */
const helpOf = async (...argv: string[]): Promise<string> => {
  let text = "";
  const sink = { write: (piece: string) => void (text += piece), isTTY: false, columns: 80 };
  const code = await runCli({
    argv,
    environment: { all: {}, cwd: "/", image: { registry: undefined, image: undefined, pullPolicy: undefined } },
    stdout: sink,
    stderr: sink,
    openMachine: () => Promise.reject(new Error("help needs no machine")),
    interrupts: new Interrupts(),
    clock: systemClock,
  });
  expect(code).toBe(0);
  return text;
};

describe("help", () => {
  test("groups the commands, and names none that is not there", async () => {
    const text = await helpOf("help");
    expect(text).toMatchSnapshot();
    expect(text).not.toMatch(/^ +daemon\b/m);
    expect(await helpOf()).toBe(text);
    expect(await helpOf("--help")).toBe(text);
  });

  test.each(["connect", "intercept", "list", "uninstall", "quit"])("of %s", async (name) => {
    const text = await helpOf("help", name);
    expect(text).toMatchSnapshot();
    expect(await helpOf(name, "--help")).toBe(text);
  });

  test("of a command's command", async () => {
    expect(await helpOf("help", "preview", "create")).toBe(await helpOf("preview", "create", "--help"));
    expect(await helpOf("help", "helper", "install")).toBe(await helpOf("helper", "--help"));
  });
});
