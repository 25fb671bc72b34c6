// Two cloud servers on one real PostgreSQL: the second waits for the first one's end, however that comes, or gives up.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Clock } from "#base/clock.ts";
import { systemClock } from "#base/clock.ts";
import type { AppError } from "#base/error.ts";
import { createLogger, silentLogger } from "#base/log.ts";
import { claimPostgres } from "#cloud/storage/sole-server.ts";
import { PreviewLab } from "#test/flow/cloud/preview-lab.ts";
import { PgBouncer } from "./pgbouncer.ts";
import { PostgresServer } from "./postgres-server.ts";

const program = join(import.meta.dirname, "../../src/cloud/main.ts");
let postgres: PostgresServer;
const servers: Server[] = [];
beforeAll(async () => {
  postgres = await PostgresServer.start();
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.end("SIGKILL");
});
afterAll(() => postgres[Symbol.asyncDispose]());

/** `cloud serve` as a process of its own. */
class Server {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #news = new EventTarget();
  readonly #ended: Promise<unknown>;

  constructor(database: string) {
    const words = ["serve", "--listen", "127.0.0.1:0", "--database", database];
    const child = spawn(process.execPath, [program, ...words], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    this.#ended = once(child, "close");
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        this.#lines.push(line);
        this.#news.dispatchEvent(new Event("line"));
      });
    }
    servers.push(this);
  }

  /** The first line with this text, which may have been said before. */
  async says(text: string): Promise<string> {
    for (;;) {
      const line = this.#lines.find((each) => each.includes(text));
      if (line !== undefined) return line;
      await once(this.#news, "line");
    }
  }

  async url(): Promise<string> {
    return /http:\S+/.exec(await this.says("cloud server is at"))?.[0] ?? "";
  }

  /** Its exit code. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    await this.#ended;
    return this.#child.exitCode;
  }
}

test.each(["SIGTERM", "SIGKILL"] as const)("a second server takes over when the first ends by %s", async (signal) => {
  const database = postgres.newDatabase();
  const first = new Server(database);
  const url = await first.url();
  const second = new Server(database);
  await second.says("waiting for its end");
  expect(await (await fetch(`${url}/readyz`)).text()).toBe("ok\n");
  const startedMs = performance.now();
  await first.end(signal);
  expect(await (await fetch(`${await second.url()}/readyz`)).text()).toBe("ok\n");
  // oxlint-disable-next-line no-console -- a figure
  console.log(
    `[figure] a second server serves after ${signal} of the first: ${Math.round(performance.now() - startedMs)} ms`,
  );
});

// A lock of a session is one of whichever connection the pooler had at hand: two servers had it at once, by the same one, and
// when they had ended nobody could have it.
test("behind a PgBouncer in transaction mode a second server waits, and takes over", async () => {
  await using bouncer = await PgBouncer.start(postgres.newDatabase());
  const first = new Server(bouncer.url);
  expect(await (await fetch(`${await first.url()}/readyz`)).text()).toBe("ok\n");
  const second = new Server(bouncer.url);
  await second.says("waiting for its end");
  await first.end("SIGKILL");
  expect(await (await fetch(`${await second.url()}/readyz`)).text()).toBe("ok\n");
  await second.end("SIGTERM");
});

test("a server that waits ends when it is told to, and one of another schema does not wait", async () => {
  const database = postgres.newDatabase();
  const first = new Server(database);
  await first.url();
  const second = new Server(database);
  await second.says("waiting for its end");
  const third = new Server(postgres.newDatabase());
  await third.url();
  expect(await second.end("SIGTERM")).toBe(0);
});

/** Waiting takes no time. */
function hurriedClock(): Clock {
  let nowMs = 0;
  return {
    ...systemClock,
    now: () => nowMs,
    sleep: async (delayMs) => {
      nowMs += delayMs;
    },
  };
}
const never = (error: AppError): void => expect.unreachable(error.message);

test("a server whose turn does not come gives up, and says which other one works", async () => {
  const database = `${postgres.newDatabase()}&application_name=shop`; // whose name would be every server's
  await using _first = await claimPostgres(database, { clock: systemClock, log: silentLogger, onLost: never });
  const second = claimPostgres(database, { clock: hurriedClock(), log: silentLogger, onLost: never });
  await expect(second).rejects.toMatchObject({
    message: expect.stringMatching(
      /^another cloud server works on this database \(telepresence-cloud [0-9a-f]{8} /,
    ) as string,
    hint: expect.stringContaining("end that one, or give this one a database of its own") as string,
  });
});

test("where the database has no schema for it, it is not another server that is named", async () => {
  const database = postgres.newDatabase().replace(/search_path%3D\w+/, "search_path%3Dnowhere");
  await using _claim = await claimPostgres(database, { clock: hurriedClock(), log: silentLogger, onLost: never });
});

// The lock's transaction stays open for as long as the server runs.
test("a limit for idle transactions does not end it, and it holds back no vacuum", async () => {
  const url = new URL(postgres.newDatabase());
  const settings = "-cidle_in_transaction_session_timeout=200 -cdefault_transaction_isolation=repeatable\\ read";
  url.searchParams.set("options", `${url.searchParams.get("options")} ${settings}`);
  const database = url.href;
  await using _claim = await claimPostgres(database, { clock: systemClock, log: silentLogger, onLost: never });
  const other = new pg.Client({ connectionString: database });
  await other.connect();
  const ended = once(other, "error");
  other.on("error", () => undefined); // a second one says that the connection is gone
  await other.query("BEGIN");
  expect((await ended)[0]).toMatchObject({ message: expect.stringContaining("idle-in-transaction timeout") as string });
  const claims =
    "FROM pg_stat_activity WHERE application_name LIKE 'telepresence-cloud%' AND state = 'idle in transaction'";
  expect(postgres.query(`SELECT count(*) ${claims}`)).toBe("1");
  expect(postgres.query(`SELECT count(*) ${claims} AND backend_xmin IS NULL AND backend_xid IS NULL`)).toBe("1");
});

const ending = (name: string): string =>
  `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '${name}%'`;

/** As another server would that waits while the connection of the first one breaks. */
async function takeOver(database: string): Promise<AsyncDisposable> {
  const other = new pg.Client({ connectionString: database, application_name: "another" });
  await other.connect();
  const taking = other.query("SELECT pg_advisory_lock(7470112, hashtext(current_schema()))"); // stands first in line
  const waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'another' AND wait_event_type = 'Lock'";
  await expect.poll(() => postgres.query(waits)).toBe("1");
  postgres.query(ending("telepresence-cloud "));
  await taking;
  return { [Symbol.asyncDispose]: () => other.end() };
}

test("a server that loses its connection has the database again", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const log = createLogger("info", (line) => void (line.includes("server's again") && resolve()));
  const database = postgres.newDatabase();
  await using _claim = await claimPostgres(database, { clock: systemClock, log, onLost: never });
  postgres.query(ending("telepresence-cloud "));
  await promise;
});

test("a server whose database another one has got meanwhile has to end", async () => {
  const { promise, resolve } = Promise.withResolvers<AppError>();
  const database = postgres.newDatabase();
  await using _claim = await claimPostgres(database, { clock: systemClock, log: silentLogger, onLost: resolve });
  await using _other = await takeOver(database);
  expect((await promise).message).toBe("another cloud server has taken the database over (another)");
});

// A server that had lost its database wrote its sums of visitors over those of the next one as its last deed.
test.each([
  ["writes the last counts of visitors when it ends", false],
  ["writes none when another server has its database", true],
])("a server %s", async (_, lost) => {
  const { promise: failed, resolve: onFailed } = Promise.withResolvers<AppError>();
  const url = postgres.newDatabase();
  await using lab = await PreviewLab.open({ database: url, onFailed });
  const [ann, laptop] = [await lab.person("ann"), await lab.laptop()];
  await lab.join(laptop, ann);
  const preview = await lab.preview(laptop, ann, { port: 1, access: "public" });
  expect((await lab.visit(preview)).status).toBe(502); // nobody listens there; it was a visit all the same
  await using other = lost ? await takeOver(url) : undefined;
  if (other !== undefined) expect((await failed).message).toContain("taken the database over");
  await lab.cloud[Symbol.asyncDispose]();
  const rows = await lab.database.all("SELECT requests FROM preview_visits WHERE preview_id = $1", [preview.id]);
  expect(rows).toEqual(lost ? [] : [{ requests: 1 }]);
});
