// The laptops: each a network namespace with a private mount namespace on top, in which /etc is an overlay (own
// resolv.conf, an ordinary user, its sudo rule), /run is empty but for what the testbed shares, and /sys shows the
// laptop's own devices. The machine's files, its users and its name service are never touched, and a resolver or
// message bus of the machine cannot be reached by mistake.
import { chmodSync, chownSync, copyFileSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { run } from "./exec.ts";
import {
  binDir,
  checkoutRoot,
  homeDir,
  kubeconfigFile,
  laptopAddresses,
  laptopDir,
  laptopNamespace,
} from "./layout.ts";
import { logDir, namespaceFile, ordinaryUser, sharedDir, stateDir } from "./layout.ts";
import type { ClusterUser, LaptopNumber, LaptopUser } from "./layout.ts";
import { startAnchor, type Anchor } from "./node.ts";

export interface LaptopOptions {
  /** Default: the ordinary user. */
  readonly user?: LaptopUser;
  readonly laptop?: LaptopNumber;
  /** Added to the usual environment; undefined takes a name out of it. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `bare` has PATH and nothing else, before `env`. */
  readonly environment?: "usual" | "bare";
  /** Whose kubeconfig KUBECONFIG names. Default: admin. */
  readonly clusterUser?: ClusterUser;
  /** Default: the user's home. */
  readonly cwd?: string;
}

/** For `spawn(file, args)`: the program takes this process's place, so signals and exit codes are its own. */
export interface SpawnSpec {
  readonly file: string;
  readonly args: readonly string[];
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const { name: userName, uid, gid } = ordinaryUser;

/** Makes the files that the laptop's mount namespace shows. Run before startLaptopAnchor(). */
export function layLaptop(laptop: LaptopNumber): void {
  mkdirSync(binDir(laptop), { recursive: true });
  writeFileSync(join(binDir(laptop), "kubectl"), ""); // the program is mounted over it
  for (const user of [userName, "root"] as const) {
    const home = homeDir(user, laptop);
    const config = join(home, ".kube/config");
    mkdirSync(dirname(config), { recursive: true });
    copyFileSync(kubeconfigFile("admin"), config);
    chmodSync(config, 0o600);
    chmodSync(home, 0o700);
    if (user === userName) for (const path of [config, dirname(config), home]) chownSync(path, uid, gid);
  }
}

const laptopMounts = (laptop: LaptopNumber, kubectl: string): string => {
  const cover = `${stateDir}/cover-${laptop}`;
  const home = homeDir(userName, laptop);
  return `set -e
mkdir -p ${cover}; mount -t tmpfs -o mode=755 tmpfs ${cover}
cd ${cover}; mkdir -p .${sharedDir.slice("/run".length)} lock etc/upper etc/work user/${uid}
chmod 1777 lock; chmod 700 user/${uid}; chown ${uid}:${gid} user/${uid}
mount --rbind ${sharedDir} .${sharedDir.slice("/run".length)}
cd /; mount -n --move ${cover} /run
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
rm -f /etc/resolv.conf
echo 'nameserver ${laptopAddresses(laptop).gateway}' > /etc/resolv.conf
echo '${userName}:x:${uid}:${gid}:test user:${home}:/bin/bash' >> /etc/passwd
echo '${userName}:x:${gid}:' >> /etc/group
echo '${userName}:*:19000:0:99999:7:::' >> /etc/shadow
mount -t sysfs sysfs /sys 2>/dev/null || true
mount --bind '${kubectl}' ${binDir(laptop)}/kubectl
echo ready
exec "$0"
`;
};

export async function startLaptopAnchor(laptop: LaptopNumber, kubectl: string, pause: string): Promise<Anchor> {
  const enter = [`--net=${namespaceFile(laptopNamespace(laptop))}`, "unshare", "--mount", "--propagation", "slave"];
  const script = laptopMounts(laptop, kubectl);
  const args = [...enter, "/bin/sh", "-c", script, pause];
  return { init: await startAnchor("nsenter", args, join(logDir, `laptop-${laptop}.log`)) };
}

/** Puts this checkout's `telepresence` on the laptop's PATH, and lets the user run its helper as root. */
export async function offerProduct(laptop: LaptopNumber, anchor: Anchor): Promise<void> {
  const inLaptop = [`--mount=/proc/${anchor.init.pid}/ns/mnt`];
  let root = checkoutRoot;
  if (!isReachable(root)) {
    // a checkout in a closed home folder is shown at a place that the ordinary user can reach
    root = join(laptopDir(laptop), "checkout");
    mkdirSync(root, { recursive: true });
    await run("nsenter", [...inLaptop, "umount", "-l", root], { allowFailure: true });
    await run("nsenter", [...inLaptop, "mount", "--rbind", checkoutRoot, root]);
  }
  const program = join(root, "dist/bin/telepresence");
  const link = join(binDir(laptop), "telepresence");
  // Renamed into place: a command that runs meanwhile finds the old or the new one, never none.
  rmSync(`${link}.new`, { force: true });
  symlinkSync(program, `${link}.new`);
  renameSync(`${link}.new`, link);
  const rule = sudoRule(program);
  const file = "/etc/sudoers.d/telepresence-testbed"; // sudo passes over names with a dot
  const script = `umask 0227; rm -f ${file}.new; cat > ${file}.new && mv -f ${file}.new ${file}`;
  await run("nsenter", [...inLaptop, "/bin/sh", "-c", script], { input: rule });
}

/** The helper and nothing else. */
export function sudoRule(program: string): string {
  const escaped = program.replaceAll(/[\\,:= *?[\]!"]/g, (character) => `\\${character}`);
  return `${userName} ALL=(root) NOPASSWD: ${escaped} helper, ${escaped} helper *\n`;
}

/** True when every user can read this folder. */
export function isReachable(folder: string, modeOf: (path: string) => number = (path) => statSync(path).mode): boolean {
  for (let path = folder; ; path = dirname(path)) {
    const needed = path === folder ? 0o005 : 0o001;
    if ((modeOf(path) & needed) !== needed) return false;
    if (path === "/") return true;
  }
}

export function laptopSpawnSpec(anchor: Anchor, argv: readonly string[], options: LaptopOptions = {}): SpawnSpec {
  const laptop = options.laptop ?? 1;
  const user = options.user ?? userName;
  const env = { ...baseEnv(user, laptop, options), ...options.env };
  const settings = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
  const identity =
    user === "root" ? [] : ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--inh-caps=-all"];
  const enter = [`--net=${namespaceFile(laptopNamespace(laptop))}`, `--mount=/proc/${anchor.init.pid}/ns/mnt`];
  const cwd = options.cwd ?? homeDir(user, laptop);
  return { file: "nsenter", args: [...enter, `--wdns=${cwd}`, "--", ...identity, "env", "-i", ...settings, ...argv] };
}

function baseEnv(user: LaptopUser, laptop: LaptopNumber, options: LaptopOptions): Record<string, string> {
  const path = { PATH: `${binDir(laptop)}:${systemPath}` };
  if (options.environment === "bare") return path;
  return {
    ...path,
    HOME: homeDir(user, laptop),
    USER: user,
    LOGNAME: user,
    SHELL: "/bin/bash",
    LANG: "C.UTF-8",
    ...(user === "root" ? {} : { XDG_RUNTIME_DIR: `/run/user/${uid}` }),
    KUBECONFIG: kubeconfigFile(options.clusterUser ?? "admin"),
  };
}
