// The way to a cloud server that takes a connection and then says nothing.
import { duplexPair } from "node:stream";
import { expect, test } from "vitest";
import { openCloudSocket } from "./cloud-socket.ts";

test.each(["https://cloud.example.com", "http://localhost:8443"])(
  "a silent server at %s is given up in time",
  async (url) => {
    const [near, far] = duplexPair();
    far.on("error", () => undefined);
    const limit = new AbortController();
    const late = new Error("too late");
    far.once("data", () => limit.abort(late));
    const opening = openCloudSocket(
      { url: new URL(url), caCertificates: [] },
      "tpm_x",
      () => Promise.resolve(near),
      limit.signal,
    );
    await expect(opening).rejects.toBe(late);
    expect(near.destroyed).toBe(true);
  },
);
