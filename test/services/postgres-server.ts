// A PostgreSQL of the test's own: Debian's programs, a new cluster in a folder of /tmp, an ordinary user, a Unix socket
// that only the folder's owner reaches, and no port unless it is told one of a network namespace. It ends with the test.
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess, ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, chownSync, globSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

type PostgresChild = ChildProcessByStdio<null, null, Readable>;

export class PostgresServer implements AsyncDisposable {
  readonly #folder: string;
  readonly #server: ChildProcess;
  #databases = 0;

  private constructor(folder: string, server: ChildProcess) {
    this.#folder = folder;
    this.#server = server;
  }

  static async start(network?: PostgresNetwork): Promise<PostgresServer> {
    const programs = globSync("/usr/lib/postgresql/*/bin").toSorted().at(-1);
    if (programs === undefined) throw new Error("the machine has no PostgreSQL; npm test -- services installs it");
    const folder = mkdtempSync(join(tmpdir(), "telepresence-postgres-"));
    const user = ordinaryUser();
    if (user.uid !== undefined && user.gid !== undefined) chownSync(folder, user.uid, user.gid);
    const data = join(folder, "data");
    const words = ["-D", data, "-U", "cloud", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
    execFileSync(join(programs, "initdb"), words, { ...user, stdio: "ignore", cwd: folder });
    const hostRules = (network?.clients ?? []).map((range) => `host all cloud ${range} scram-sha-256\n`);
    appendFileSync(join(data, "pg_hba.conf"), hostRules.join(""));
    const settings = [
      `listen_addresses=${network?.address ?? ""}`,
      `unix_socket_directories=${folder}`,
      "fsync=off",
      "full_page_writes=off",
      "autovacuum=off",
      "max_connections=60",
    ];
    const argv = [join(programs, "postgres"), "-D", data, ...settings.flatMap((each) => ["-c", each])];
    const server = spawnAs(argv, { ...user, cwd: folder }, network?.namespaceFile);
    const lines: string[] = [];
    for await (const line of createInterface({ input: server.stderr })) {
      lines.push(line);
      if (line.includes("ready to accept connections")) break;
    }
    server.stderr.resume();
    if (server.exitCode !== null) throw new Error(`PostgreSQL did not start: ${lines.join("; ")}`);
    return new PostgresServer(folder, server);
  }

  /** A new, empty schema, which connections by this address take for their database; a real one takes a second. */
  newDatabase(): string {
    const name = `test_${++this.#databases}`;
    this.query(`CREATE SCHEMA ${name}`);
    const query = new URLSearchParams({ host: this.#folder, options: `-csearch_path=${name}` });
    return `postgres://cloud@localhost/postgres?${query}`;
  }

  /** Rows of a query as lines of the database `postgres`, values parted by `|`; also what changes something. */
  query(sql: string): string {
    const words = ["-h", this.#folder, "-U", "cloud", "-d", "postgres", "-qAtc", sql];
    return execFileSync("psql", words, { encoding: "utf8" }).trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#server, "exit");
    this.#server.kill("SIGINT"); // a fast shutdown
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Where it listens by TCP, at port 5432. Its user `cloud` needs a password from there. */
export interface PostgresNetwork {
  readonly namespaceFile: string;
  readonly address: string;
  /** Ranges that it lets in. */
  readonly clients: readonly string[];
}

type Who = { readonly uid?: number; readonly gid?: number; readonly cwd: string };

function spawnAs(
  [file = "", ...args]: readonly string[],
  { uid, gid, cwd }: Who,
  namespaceFile?: string,
): PostgresChild {
  const stdio: ["ignore", "ignore", "pipe"] = ["ignore", "ignore", "pipe"];
  if (namespaceFile === undefined) {
    return spawn(file, args, {
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
      cwd,
      stdio,
    });
  }
  // the namespace first, as root; nsenter is replaced by the program, whose pid is the child's
  const whose = [`--setuid=${uid}`, `--setgid=${gid}`];
  return spawn("nsenter", [`--net=${namespaceFile}`, ...whose, "--", file, ...args], { cwd, stdio });
}

/** PostgreSQL refuses to be root; its package has made a user for it. */
export function ordinaryUser(): { readonly uid?: number; readonly gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const id = (flag: string): number => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
}
