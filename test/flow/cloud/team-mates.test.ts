// Somebody of the same team whose manager tells of what is another's: of a preview, to be asked for it; of an intercept,
// to be taken for its owner. The manager is a program of theirs, which may tell anything.
import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { Server } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { CloudLink } from "#manager/cloud/cloud-link.ts";
import type { SessionRecord } from "#manager/registry/sessions.ts";
import type { TestLaptop } from "#test/flow/manager/harness.ts";
import type { PreviewView, ReportedIntercept } from "#wire/cloud-api.ts";
import { PreviewLab, clusterId } from "./preview-lab.ts";
import type { LoggedIn } from "./preview-lab.ts";

let lab: PreviewLab;
let ann: LoggedIn;
let mallory: LoggedIn;
let laptop: TestLaptop;
let server: Server;
let preview: PreviewView;
let link: CloudLink;
let told: readonly ReportedIntercept[] = [];
/** What was asked of mallory's manager. */
const asked: string[] = [];
let joinedBy: string;

beforeAll(async () => {
  lab = await PreviewLab.open();
  ann = await lab.person("ann");
  mallory = await lab.person("mallory");
  server = createServer((_request, response) => response.setHeader("connection", "close").end("ann's"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { token } = await lab.register(mallory);
  joinedBy = createHash("sha256").update(token).digest("hex");
  link = new CloudLink(
    {
      url: new URL(lab.url),
      instance: randomUUID(),
      clock: systemClock,
      log: silentLogger,
      dial: () => Promise.resolve(connect({ port: lab.cloud.port, host: "127.0.0.1", allowHalfOpen: true })),
      report: () => ({ intercepts: [...told], more: 0 }),
      onIncoming: (incoming) => {
        asked.push(incoming.request.kind);
        incoming.reject("refused", "mallory's");
      },
      endIntercept: (_link, id) => Promise.resolve(void asked.push(id)),
    },
    { session: {} as SessionRecord, token, caCertificates: [], tell: () => undefined },
  );
  await lab.until(
    () => lab.clusters(ann),
    ([cluster]) => cluster?.live === true,
  );
  laptop = await lab.laptop();
  await lab.join(laptop, ann);
  preview = await lab.preview(laptop, ann, { port: (server.address() as AddressInfo).port, access: "public" });
});
afterAll(async () => {
  await link.close();
  await lab[Symbol.asyncDispose]();
  server.close();
});

/** As ann's, with what mallory would have of it. */
async function tell(change: Partial<ReportedIntercept>): Promise<void> {
  const found = await lab.until(
    () => lab.interceptsOf(ann),
    (all) => all.some(({ id }) => id.startsWith(`${laptop.sessionId}:`)),
  );
  const anns = found.find(({ id }) => id.startsWith(`${laptop.sessionId}:`));
  if (anns === undefined) throw new Error("ann has no intercept");
  const { owner: _owner, own: _own, ...intercept } = anns;
  told = [{ ...intercept, joinedBy, ...change }];
  await link.reported();
}

test("a preview is asked of the manager that its owner's laptop has joined, and is over by its word alone", async () => {
  await tell({ id: "mallorys:hello", name: "mallorys", previewIds: [preview.id], state: "suspended" });
  expect((await lab.interceptsOf(ann)).find(({ name }) => name === "mallorys")?.previewIds).toEqual([]);
  expect((await lab.visit(preview)).body).toBe("ann's");
  link.previewGone(preview.id);
  await tell({ id: "mallorys:hello", name: "after", previewIds: [] });
  expect((await lab.visit(preview)).body).toBe("ann's");
  expect(asked).toEqual([]);
});

test("whoever tells of another's intercept as their own gets no further than their own manager", async () => {
  await tell({});
  const id = told[0]?.id ?? "";
  const path = `/api/clusters/${clusterId}/intercepts/${encodeURIComponent(id)}`;
  const ended: unknown[] = [];
  using _listening = laptop.rpc.onNotification("intercept.ended", (news) => void ended.push(news));
  expect((await lab.api(mallory, "GET", `${path}/inspect/api/har`)).status).not.toBe(200);
  expect((await lab.api(mallory, "DELETE", path)).status).toBe(200);
  expect(asked).toEqual(["inspect", id]);
  expect(ended).toEqual([]);
  expect((await lab.visit(preview)).body).toBe("ann's");
  expect((await lab.api(ann, "DELETE", path)).status).toBe(200);
  expect(asked).toEqual(["inspect", id]);
});
