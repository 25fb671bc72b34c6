// PROTOCOL.md against the code: every golden vector decodes to what it says and encodes to its bytes, and the tables of
// the page are the tables of src/wire.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "#base/error.ts";
import { agentNotifications, agentToManagerApi, managerToAgentApi } from "#wire/agent-api.ts";
import { controlApi, controlCallerNotifications, controlNotifications } from "#wire/control-api.ts";
import { decodeOpen, decodeUint32, encodeOpen, encodeReason, encodeUint32 } from "#wire/frame-body.ts";
import { FrameDecoder, encodeFrame, formatFrameType, frameTypes, readUint16 } from "#wire/frame.ts";
import type { Frame } from "#wire/frame.ts";
import { HelloDecoder, encodeHello } from "#wire/hello-codec.ts";
import type { Hello } from "#wire/hello.ts";
import { helperApi } from "#wire/helper.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import * as limits from "#wire/limits.ts";
import { managerApi, managerNotifications } from "#wire/manager-api.ts";
import { openRequestSchema, resetCodes } from "#wire/open.ts";
import type { OpenRequest } from "#wire/open.ts";

const root = join(import.meta.dirname, "../../..");
const golden = join(root, "test/golden");
const page = readFileSync(join(root, "PROTOCOL.md"), "utf8");
const sections = new Set([...page.matchAll(/^#{2,3} (\d(?:\.\d+)?) /gm)].map((match) => match[1] ?? ""));

interface Vector {
  readonly name: string;
  readonly section: string;
  readonly says: unknown;
  readonly bytes: Uint8Array;
}

/** `§4.2 title`, a line of JSON, lines of hex, an empty line. */
function readVectors(file: string): readonly Vector[] {
  const blocks = readFileSync(join(golden, file), "utf8").trimEnd().split(/\n\n+/).slice(1);
  return blocks.map((block) => {
    const [title = "", json = "", ...hex] = block.split("\n");
    const section = /^§(\S+) /.exec(title)?.[1] ?? "";
    return {
      name: title,
      section,
      says: JSON.parse(json),
      bytes: Buffer.from(hex.join("").replaceAll(" ", ""), "hex"),
    };
  });
}

interface FrameText {
  readonly type: keyof typeof frameTypes;
  readonly streamId: number;
  readonly seq: number;
  readonly body?: unknown;
}

function encodeBody(type: keyof typeof frameTypes, body: unknown): Uint8Array {
  if (body === undefined) return new Uint8Array(0);
  if (type === "open") return encodeOpen(body as OpenRequest);
  if (typeof body === "number") return encodeUint32(body);
  if (typeof body === "string") return Buffer.from(body, "hex");
  const { code, message } = body as { code: number; message: string };
  return encodeReason(code, message);
}

function decodeBody(type: keyof typeof frameTypes, payload: Uint8Array): unknown {
  if (type === "open") return decodeOpen(payload);
  if (type === "credit" || type === "ack") return decodeUint32(payload);
  if (type === "openOk" || type === "end") return undefined;
  if (type === "reject" || type === "reset" || type === "goaway") {
    return { code: readUint16(payload, 0), message: Buffer.from(payload.subarray(2)).toString() };
  }
  return Buffer.from(payload).toString("hex");
}

function decode(bytes: Uint8Array): readonly Frame[] {
  const frames: Frame[] = [];
  const decoder = new FrameDecoder();
  decoder.push(bytes, (frame) => frames.push(frame));
  expect(decoder.bufferedBytes).toBe(0);
  return frames;
}

describe("golden vectors", () => {
  test("name sections of the page", () => {
    for (const file of readdirSync(golden)) {
      const named = readVectors(file).map((vector) => vector.section);
      expect(named).not.toEqual([]);
      expect(named.filter((section) => !sections.has(section))).toEqual([]);
    }
  });

  test.each(readVectors("hello.txt"))("$name", ({ says, bytes }) => {
    expect(Buffer.from(encodeHello(says as Hello)).toString("hex")).toBe(Buffer.from(bytes).toString("hex"));
    expect(new HelloDecoder().push(bytes)?.hello).toEqual(says);
  });

  test.each(readVectors("frames.txt"))("$name", ({ says, bytes }) => {
    const { type, streamId, seq, body } = says as FrameText;
    const payload = encodeBody(type, body);
    const encoded = encodeFrame({ type: frameTypes[type], streamId, seq, payload });
    expect(Buffer.from(encoded).toString("hex")).toBe(Buffer.from(bytes).toString("hex"));
    const [frame] = decode(bytes);
    expect(frame).toMatchObject({ type: frameTypes[type], streamId, seq });
    expect(decodeBody(type, frame?.payload ?? new Uint8Array(0))).toEqual(body);
  });

  test("show every type of frame", () => {
    const shown = new Set(readVectors("frames.txt").map((vector) => (vector.says as FrameText).type));
    expect([...shown].toSorted()).toEqual(Object.keys(frameTypes).toSorted());
  });

  test.each(readVectors("malformed.txt"))("$name", ({ bytes }) => {
    expect(() => decode(bytes)).toThrow(ProtocolError);
  });
});

/** The cells of the rows of every table of a section, without back-ticks. */
function tableRows(section: string): readonly (readonly string[])[] {
  const from = page.search(new RegExp(`^#{2,3} ${section.replace(".", "\\.")} `, "m"));
  const rest = page.slice(page.indexOf("\n", from));
  const text = rest.slice(0, rest.search(/^#{2,3} /m));
  return [...text.matchAll(/^\| (?!-)(.*) \|$/gm)].map((match) =>
    (match[1] ?? "").split(/ \|(?: |$)/).map((cell) => cell.trim().replace(/^`(.*)`$/, "$1")),
  );
}

/** Names in the table of a section whose heading row is this. */
function namesUnder(section: string, heading: string): readonly string[] {
  const rows = tableRows(section);
  const start = rows.findIndex(([first]) => first === heading);
  expect(start, `§${section} has a table "${heading}"`).toBeGreaterThanOrEqual(0);
  const after = rows.slice(start + 1);
  const end = after.findIndex(([first = ""]) => /^(method|notification|verb) of /.test(first));
  return after.slice(0, end === -1 ? undefined : end).map(([first = ""]) => first.replaceAll("`", ""));
}

describe("the page", () => {
  test("lists the types of frames", () => {
    const rows = tableRows("4.2").slice(1);
    expect(rows.map(([number, name]) => [Number(number), name])).toEqual(
      Object.values(frameTypes).map((type) => [type, formatFrameType(type)]),
    );
  });

  test("lists the reasons", () => {
    const rows = tableRows("4.6").slice(1);
    expect(Object.fromEntries(rows.map(([code, reason]) => [reason, Number(code)]))).toEqual(resetCodes);
  });

  test("lists the kinds of OPEN", () => {
    const kinds = openRequestSchema.options.map((option) => option.shape.kind.value);
    expect(
      tableRows("5.1")
        .slice(1)
        .map(([kind]) => kind),
    ).toEqual(kinds);
  });

  test("lists the limits, in the order of limits.ts", () => {
    const rows = tableRows("7").slice(1);
    const source = readFileSync(join(root, "src/wire/limits.ts"), "utf8");
    const declared = [...source.matchAll(/^\/\*\* (protocol|chosen): [^]*?\nexport const (\w+)/gm)];
    const values = limits as unknown as Readonly<Record<string, number>>;
    expect(rows).toHaveLength(Object.keys(limits).length);
    expect(rows.map(([, value = "", by]) => [Number(value.replaceAll(",", "")), by])).toEqual(
      declared.map(([, by, name = ""]) => [values[name], by]),
    );
  });

  test.each([
    ["8.1", "method of the manager", managerApi],
    ["8.1", "notification of the manager", managerNotifications],
    ["8.2", "method of the manager", agentToManagerApi],
    ["8.2", "method of the agent", managerToAgentApi],
    ["8.2", "notification of the agent", agentNotifications],
    ["8.3", "method of the agent", introductionApi],
    ["8.4", "method of the daemon", controlApi],
    ["8.4", "notification of the CLI", controlCallerNotifications],
    ["8.4", "notification of the daemon", controlNotifications],
    ["8.5", "verb of the helper", helperApi],
  ])("lists in §%s each %s", (section, heading, table) => {
    expect(namesUnder(section, heading)).toEqual(Object.keys(table));
  });
});
