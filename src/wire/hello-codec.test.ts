import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "#base/error.ts";
import type { AppError } from "#base/error.ts";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { HelloDecoder, encodeHello, helloMagic, negotiate } from "./hello-codec.ts";
import type { Hello } from "./hello.ts";
import { maxHelloBytes } from "./limits.ts";

const hello = (min: number, max: number, role: Hello["role"] = "laptop", features: string[] = []): Hello => ({
  protocol: { min, max },
  software: `0.${max}.0`,
  role,
  features,
});

function errorOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("HelloDecoder", () => {
  test("reads at every split point and keeps what follows", () => {
    const bytes = Buffer.concat([encodeHello(hello(1, 2)), Buffer.from("frames")]);
    const end = bytes.length - 6;
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      const decoder = new HelloDecoder();
      const first = decoder.push(bytes.subarray(0, cut));
      expect(first === undefined).toBe(cut < end);
      const decoded = first ?? decoder.push(bytes.subarray(cut));
      expect(decoded?.hello).toEqual(hello(1, 2));
      expect(Buffer.from(decoded?.rest ?? []).toString()).toBe("frames".slice(0, first === undefined ? 6 : cut - end));
    }
  });

  test("refuses an HTTP request at its first byte", () => {
    expect(() => new HelloDecoder().push(Buffer.from("G"))).toThrow("does not speak");
  });

  test("refuses a length above the bound before the body comes", () => {
    const bytes = Buffer.concat([helloMagic, Buffer.alloc(4)]);
    bytes.writeUInt32BE(maxHelloBytes + 1, helloMagic.length);
    expect(() => new HelloDecoder().push(bytes)).toThrow(ProtocolError);
  });

  test("ignores keys of later versions and refuses a HELLO without the ones every version has", () => {
    const json = Buffer.from(JSON.stringify({ ...hello(1, 9), colour: "red" }));
    const prefix = Buffer.concat([helloMagic, Buffer.alloc(4)]);
    prefix.writeUInt32BE(json.length, helloMagic.length);
    expect(new HelloDecoder().push(Buffer.concat([prefix, json]))?.hello).toEqual(hello(1, 9));
    prefix.writeUInt32BE(2, helloMagic.length);
    expect(() => new HelloDecoder().push(Buffer.concat([prefix, Buffer.from("{}")]))).toThrow(ProtocolError);
  });

  test("throws nothing but ProtocolError at random bytes after the magic", () => {
    const property = fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      const error = errorOf(() =>
        new HelloDecoder().push(Buffer.concat([helloMagic, Buffer.of(0, 0, 0, bytes.length), bytes])),
      );
      return error === undefined || error instanceof ProtocolError;
    });
    const runs = { numRuns: randomInputs(5000), interruptAfterTimeLimit: 3000, markInterruptAsFailure: false };
    expect(fc.check(property, runs).failed).toBe(false);
  });
});

describe("negotiate()", () => {
  test("takes the highest common version, N with N−1 in both directions", () => {
    expect(negotiate(hello(1, 2), hello(2, 3)).version).toBe(2);
    expect(negotiate(hello(2, 3), hello(1, 2)).version).toBe(2);
    expect(negotiate(hello(1, 1), hello(1, 1)).version).toBe(1);
  });

  test("keeps the features that both name", () => {
    const agreement = negotiate(hello(1, 1, "laptop", ["a", "b"]), hello(1, 1, "manager", ["b", "c"]));
    expect([...agreement.features]).toEqual(["b"]);
  });

  const mismatch = (mine: Hello, theirs: Hello): AppError => errorOf(() => negotiate(mine, theirs)) as AppError;

  test("names both versions and the command when the manager is too old", () => {
    const error = mismatch(hello(4, 5), hello(2, 3, "manager"));
    expect(error.code).toBe("version_mismatch");
    expect(error.message).toBe(
      "telepresence 0.5.0 (protocol 4 to 5) and the traffic-manager 0.3.0 (protocol 2 to 3) have no protocol version in common",
    );
    expect(error.hint).toContain("telepresence uninstall --everything");
  });

  test("names the laptop's own update when the manager is too new, and the agents' when they are too old", () => {
    expect(mismatch(hello(1, 1), hello(3, 4, "manager")).hint).toContain("npm install --global telepresence@0.4.0");
    expect(mismatch(hello(3, 4, "manager"), hello(1, 1, "agent")).hint).toContain("uninstall --all-agents");
  });

  test("says the same at both ends", () => {
    const [laptop, manager] = [hello(1, 1), hello(3, 4, "manager")];
    expect(mismatch(laptop, manager).hint).toBe(mismatch(manager, laptop).hint);
  });
});
