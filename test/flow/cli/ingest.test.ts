// What `ingest` sends to the daemon and what is printed of it, against a scripted daemon on a real socket.
import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CliLab } from "./cli-lab.ts";
import { runChild, type Outcome } from "./run-cli.ts";
import { workload } from "./scripted-daemon.ts";

const lab = CliLab.forEachTest();
const run = (...argv: string[]): Promise<Outcome> => lab.run(argv);

describe("ingest", () => {
  test("prints the container and where its files are, takes no port, and is listed and left", async () => {
    await lab.start();
    const { code, stdout, stderr } = await run("ingest", "deploy/hello", "-c", "app", "--mount", "files");
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout:
        "Using Deployment hello\n   Container name    : app\n   Pod               : hello-1\n" +
        `   Volume Mount Point: ${join(lab.home.path, "files")}\n`,
      stderr: "",
    });
    expect(lab.daemon.paramsOf("ingest")).toMatchObject({
      name: "hello",
      kind: "Deployment",
      container: "app",
      agent: "auto",
      ownedByConnection: false,
      wantEnvironment: false,
    });
    expect((await run("status")).stdout).toMatch(/Ingests +: 1 total\n +hello: container app\n/);
    const { ingests } = (JSON.parse((await run("status", "--format", "json")).stdout) as { user_daemon: object })
      .user_daemon as { ingests: unknown };
    expect(ingests).toEqual([{ workload: "hello", namespace: "default", container: "app", pod_name: "hello-1" }]);
    expect(await run("leave", "hello", "--container", "app")).toEqual({ code: 0, stdout: "", stderr: "" });
    expect(lab.daemon.paramsOf("leave")).toEqual({ name: "hello", container: "app" });
  });
  test("gives a command the environment and where it is from, and ends with it", async () => {
    await lab.start();
    const shown =
      'echo "$GREETING $TELEPRESENCE_CONTAINER $TELEPRESENCE_ROOT $TELEPRESENCE_MOUNTS [$TELEPRESENCE_INTERCEPT_ID]"';
    const argv = ["ingest", "hello", "--env-exclude", "X*", "--", "sh", "-c", `${shown}; exit 3`];
    const { code, stdout, stderr } = await runChild(argv, { env: lab.home.env });
    expect({ code, stderr, said: stdout.split("\n").at(-2) }).toEqual({
      code: 3,
      stderr: "",
      said: "hello from the pod app /run/copies /etc/app []",
    });
    expect(lab.daemon.methods().at(-1)).toBe("leave");
    expect(lab.daemon.paramsOf("leave")).toEqual({ name: "hello", namespace: "default", container: "app" });
  });
  test("has its JSON, and writes files for the user alone", async () => {
    await lab.start();
    const { stdout } = await run("ingest", "hello", "--format", "json", "--env-file", "hello.env", "--detailed-output");
    expect(JSON.parse(stdout)).toEqual({
      workload_name: "hello",
      workload_kind: "Deployment",
      namespace: "default",
      container: "app",
      pod_name: "hello-1",
      environment: {
        GREETING: "hello from the pod",
        TELEPRESENCE_CONTAINER: "app",
        TELEPRESENCE_MOUNTS: "/etc/app",
        TELEPRESENCE_ROOT: "/run/copies",
      },
      mount: { local_dir: "/run/copies", mounts: ["/etc/app"] },
    });
    expect(statSync(join(lab.home.path, "hello.env")).mode & 0o777).toBe(0o600);
  });
  test("is listed with its workload, also where nothing could be intercepted", async () => {
    const ingest = {
      workload: { kind: "Deployment" as const, name: "queue", namespace: "default" },
      containerName: "app",
    };
    const queue = workload("queue", { notInterceptableReason: "No service with matching selector", ingests: [ingest] });
    await lab.start({ list: () => ({ workloads: [workload("other"), queue], warnings: [] }) });
    expect((await run("list", "--ingests")).stdout).toBe(
      "queue: ingested\n   Container name: app\n   Pod           : none runs now\n",
    );
    expect((await run("list")).stdout).toMatch(/^queue: ingested\n/);
    expect(JSON.parse((await run("list", "-g", "--format", "json")).stdout)).toMatchObject([
      { name: "queue", ingest_info: [{ workload: "queue", container: "app" }] },
    ]);
  });
  test("refuses what it does not have, before it asks the daemon for anything", async () => {
    await lab.start();
    const refused = await run("ingest", "hello", "--port", "8080");
    expect({ code: refused.code, said: refused.stderr }).toMatchObject({
      code: 2,
      said: expect.stringMatching(/unknown option '--port'/),
    });
    expect((await run("ingest", "hello", "--mount", "")).code).toBe(2);
    const place = await run("ingest", "hello", "--mount", "/dev/null");
    expect(place.stderr).toContain("--mount is /dev/null, which is no directory");
    const file = await run("ingest", "hello", "--env-file", "/no/such/env");
    expect(file.stderr).toContain("/no/such/env cannot be written: there is no such file or directory");
    expect(lab.daemon.calls).toEqual([]);
  });
});
