// A home, and a scripted daemon in it once a test starts one, for tests that run commands in this process.
import { afterEach, beforeEach } from "vitest";
import { runHere } from "./run-cli.ts";
import type { InProcessOptions, Outcome } from "./run-cli.ts";
import { makeHome, ScriptedDaemon } from "./scripted-daemon.ts";
import type { Script } from "./scripted-daemon.ts";

/** Each test has its own. */
export class CliLab {
  #home: ReturnType<typeof makeHome> | undefined;
  #daemon: ScriptedDaemon | undefined;

  /** Registers what makes and removes it: called once at the top of a file, because files share modules. */
  static forEachTest(): CliLab {
    const lab = new CliLab();
    beforeEach(() => {
      lab.#home = makeHome();
    });
    afterEach(async () => {
      await lab.#daemon?.[Symbol.asyncDispose]();
      lab.#daemon = undefined;
      lab.#home?.[Symbol.dispose]();
    });
    return lab;
  }

  get home(): ReturnType<typeof makeHome> {
    if (this.#home === undefined) throw new Error("the home is there during tests only");
    return this.#home;
  }

  get daemon(): ScriptedDaemon {
    if (this.#daemon === undefined) throw new Error("this test has started no daemon");
    return this.#daemon;
  }

  async start(script: Script = {}): Promise<ScriptedDaemon> {
    this.#daemon = await ScriptedDaemon.start(this.home.path, script);
    return this.#daemon;
  }

  async startConnected(script: Script = {}): Promise<ScriptedDaemon> {
    const daemon = await this.start(script);
    daemon.connected = true;
    return daemon;
  }

  run(argv: readonly string[], more: Partial<InProcessOptions> = {}): Promise<Outcome> {
    return runHere(argv, { env: this.home.env, cwd: this.home.path, ...more });
  }
}
