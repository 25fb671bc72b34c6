// What a command needs of the laptop beside the daemon's socket: places of files, and other programs started. An
// interface, so that flow tests stand in for sudo and the daemon.
import type { Socket } from "node:net";
import type { AnswersFile } from "./cloud/ingress-answers.ts";
import type { LoginPlaces } from "#login/credentials.ts";

/** A program that was started; `ended` never rejects. */
export interface StartedProgram {
  readonly pid: number;
  readonly ended: Promise<ProgramEnd>;
  /** Asks it to end. */
  stop(): void;
  /** The last line that it has written to its log, if any. */
  lastWords(): Promise<string | undefined>;
}

export interface ProgramEnd {
  readonly code: number | undefined;
  readonly signal: string | undefined;
}

/** The user's own command, on the terminal of this one. */
export interface ForegroundChild {
  /** The process as nobody else can be it; undefined when it has ended already. */
  readonly identity: { readonly pid: number; readonly startTicks: number } | undefined;
  /** Whether it leads a process group of its own. */
  readonly leadsGroup: boolean;
  /** Never rejects. */
  readonly ended: Promise<ProgramEnd>;
  /** Passes on a signal that the terminal has not given to the child already. */
  forward(signal: NodeJS.Signals): void;
  /** SIGTERM, and SIGKILL when it is still there after `graceMs`. */
  terminate(graceMs: number): Promise<void>;
}

export interface ForegroundCommand {
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
}

/** Where the login at a cloud server is kept, and the browser it is got by. */
export interface CloudPlaces extends LoginPlaces {
  /** How requests come into each cluster. */
  readonly answers: AnswersFile;
  /** USER@HOST, as people are asked about this laptop. */
  readonly deviceName: string;
  /** There is a browser here to open, and somebody before it. */
  readonly hasBrowser: boolean;
  /** Whether one could be started. */
  openBrowser(url: string): Promise<boolean>;
}

/** The root helper as a service of this machine. */
export interface ServicePlaces {
  readonly runsSystemd: boolean;
  /** Whoever called, or called sudo. */
  readonly uid: number;
  /** Rejects when there is no such user; a number is taken as it is. */
  userId(name: string): Promise<number>;
  /** For whom it was set up. */
  readonly users: readonly number[];
  /** Of root's copy of the program; undefined when there is none. */
  readonly version: string | undefined;
  /** The command that changes it with these words, and `sudo` in front where it is needed. */
  setupCommand(words: readonly string[]): readonly [string, ...string[]];
  /** Resolves when a helper has come up at this user's socket and has been let go again. */
  tryService(signal: AbortSignal): Promise<void>;
}

/** How the helper gets its root privileges. */
export type HelperStart =
  /** This process is root. */
  | "directly"
  /** sudo, when it asks for nothing. */
  | "sudo-quietly"
  /** sudo, which asks on the terminal. */
  | "sudo-on-terminal";

export interface Machine {
  /** The connection that this is about; undefined is the one without a name. */
  readonly connection: string | undefined;
  /** Names that connections have, or had. */
  namedConnections(): readonly string[];
  /** This machine, about another connection. */
  about(connection: string | undefined): Promise<Machine>;
  readonly controlSocket: string;
  readonly helperSocket: string;
  readonly daemonLog: string;
  readonly helperLog: string;
  readonly configFile: string;
  readonly isRoot: boolean;
  /** There is a terminal that sudo can ask on, whatever stdin, stdout and stderr are. */
  readonly hasTerminal: boolean;
  /** A line that a person types in answer to a question; undefined where there is nobody to ask. */
  readonly readAnswer: ((signal: AbortSignal) => Promise<string>) | undefined;
  /** The command line that starts the helper, for people; `sudo` included where it is needed. */
  readonly helperCommandLine: string;
  /** The root helper was set up as a service, for this user. */
  readonly helperService: boolean;
  /** What `helper install` and its kin ask and change. */
  openServicePlaces(): Promise<ServicePlaces>;
  /** The cloud server's program, without its words. */
  readonly cloudCommand: readonly string[];
  /** In the background, its output in its log. Rejects when it cannot be started at all. */
  startDaemon(): Promise<StartedProgram>;
  /** Held by the one command that may start the daemon; undefined while another holds it. */
  tryStartLock(): Promise<Disposable | undefined>;
  /** What a login at a cloud server needs. */
  openCloudPlaces(): Promise<CloudPlaces>;
  /** Held by the one command that may start the helper. */
  tryHelperLock(): Promise<Disposable | undefined>;
  /** `socket` becomes the helper's standard input. Rejects when it cannot be started at all. */
  startHelper(how: HelperStart, socket: Socket): Promise<StartedProgram>;
  /** Whether sudo, started with this id, has let the helper through. False, too, where that cannot be seen. */
  helperHasBegun(sudoPid: number): boolean;
  /** Rejects with `command_failed` when there is no such command. */
  startForeground(command: ForegroundCommand): Promise<ForegroundChild>;
  /** Rejects when this system does not let its users have networks of their own, with the reason. */
  requirePrivateNetworks(signal: AbortSignal): Promise<void>;
  /** The command in a network of its own that is brought to the daemon's socket as number `id`. */
  privateCommand(
    network: { readonly socket: string; readonly id: number },
    command: readonly string[],
  ): Promise<ForegroundCommand["command"]>;
  isAlive(pid: number): boolean;
  /** Whether a program listens on the TCP port, on whatever address; undefined when that cannot be seen. */
  isListening(port: number): Promise<boolean | undefined>;
}
