// systemd-resolved for tests, out of Debian's package unpacked into a folder: installing it would replace the machine's
// own resolv.conf.
import { execFileSync } from "node:child_process";
import { existsSync, globSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** chosen: far from what systems give out. */
export const resolvedUser = 65_123;

/** A message bus on which everybody may do everything. */
export const busConfig = `<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`;

/** Where the unpacked package is; undefined where it cannot be had (no Debian, no network) and the tests are skipped. */
export function unpackResolved(): string | undefined {
  const folder = join(tmpdir(), "telepresence-test-systemd-resolved");
  if (existsSync(join(folder, "usr/bin/resolvectl"))) return folder;
  try {
    mkdirSync(folder, { recursive: true });
    const quiet = { cwd: folder, stdio: "ignore", timeout: 60_000 } as const;
    execFileSync("apt-get", ["download", "systemd-resolved"], quiet);
    const [file = ""] = globSync("systemd-resolved_*.deb", { cwd: folder });
    execFileSync("dpkg-deb", ["-x", file, "."], quiet);
    return folder;
  } catch {
    return undefined;
  }
}
