// A PgBouncer of the test's own before a PostgreSQL of the test's own, in transaction mode: a connection of PostgreSQL's is a
// client's for a transaction only. An ordinary user, a Unix socket in a folder of its own, no port. It ends with the test.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ordinaryUser } from "./postgres-server.ts";

const program = "/usr/sbin/pgbouncer";

export class PgBouncer implements AsyncDisposable {
  readonly #folder: string;
  readonly #child: ChildProcess;

  private constructor(folder: string, child: ChildProcess) {
    this.#folder = folder;
    this.#child = child;
  }

  /** Before the database of an address as `PostgresServer.newDatabase()` gives it. */
  static async start(database: string): Promise<PgBouncer> {
    if (!existsSync(program)) throw new Error("the machine has no PgBouncer; npm test -- services installs it");
    const folder = mkdtempSync(join(tmpdir(), "telepresence-pgbouncer-"));
    const user = ordinaryUser();
    const { searchParams } = new URL(database);
    const schema = searchParams.get("options")?.replace("-csearch_path=", "") ?? "public";
    const place = `host=${searchParams.get("host")} dbname=postgres user=cloud`;
    const lines = [
      "[databases]",
      `cloud = ${place} pool_size=20 connect_query='SET search_path TO ${schema}'`,
      "[pgbouncer]",
      "pool_mode = transaction",
      "listen_addr =",
      "listen_port = 6432",
      `unix_socket_dir = ${folder}`,
      "auth_type = any",
      "ignore_startup_parameters = statement_timeout, idle_in_transaction_session_timeout",
    ];
    const file = join(folder, "pgbouncer.ini");
    writeFileSync(file, `${lines.join("\n")}\n`);
    if (user.uid !== undefined && user.gid !== undefined) chownSync(folder, user.uid, user.gid);
    const child = spawn(program, [file], { ...user, cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
    const said: string[] = [];
    for await (const line of createInterface({ input: child.stderr })) {
      said.push(line);
      if (line.includes("process up")) break;
    }
    child.stderr.resume();
    if (child.exitCode !== null) throw new Error(`PgBouncer did not start: ${said.join("; ")}`);
    return new PgBouncer(folder, child);
  }

  get url(): string {
    return `postgres://cloud@localhost:6432/cloud?${new URLSearchParams({ host: this.#folder })}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM"); // at once
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
